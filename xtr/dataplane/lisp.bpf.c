/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
 *
 * The kernel data plane of a tunnel router (RFC 9300): two programs for tc's clsact hook, at ingress.
 *
 *   lisp_encap  on the interfaces of the site: a packet of a host that is here, for an EID that the map-cache knows, leaves
 *               encapsulated by the core.
 *   lisp_decap  on the interfaces of the core: a packet that the tunnel brought for a host that is here is delivered; one
 *               for a host that has moved away is sent on.
 *
 * The daemon's TUN plane is the slow path: what is unusual goes up the stack untouched (TC_ACT_OK), where the route of the
 * EID ranges leads it to the TUN, or UDP port 4341 to the daemon's socket. So nothing here answers, waits or resolves, and
 * without these programs everything works as well, only slower.
 *
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d. `ebpf_maps.py` writes the maps; their layouts and the enums are its as well.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define INLINE static __always_inline

/* Newer than the headers of the distributions that we build on. */
#define FIB_LOOKUP_SKIP_NEIGH (1U << 2)
#define ROOM_DECAP_L3_IPV4 (1ULL << 7)
#define ROOM_DECAP_L3_IPV6 (1ULL << 8)

#define FAMILY_IPV4 2
#define FAMILY_IPV6 10
#define PACKET_TO_US 0		/* skb->pkt_type: the frame's destination is our MAC */
#define LOOPBACK 1		/* the outer packet is routed like one of our own */
#define NEXT_FRAGMENT 44
#define DATA_PORT 4341
#define COPY_PORT 0		/* in place of it, in copies for the daemon of what was delivered */
#define FIRST_SOURCE_PORT 0xc000
#define MORE_OR_OFFSET 0x3fff	/* IPv4: More-Fragments and the fragment offset */
#define DONT_FRAGMENT 0x4000
#define FLAG_INSTANCE 0x08	/* the LISP header's I */
#define FLAGS_UNUSUAL 0xb7	/* N, E, V, P (R) and KK: only L and I are left to us */
#define CE 3

#define HOPS 8
#define SLOTS 32		/* a power of two: a locator has as many as its weight says */
#define COPIES 4		/* locators that one packet is replicated to */
#define COARSE (1ULL << 28)	/* nanoseconds, a quarter of a second: how precise "last seen" has to be */
#define TELL_AGAIN 1000000000ULL

union ip {
	__u8 byte[16];
	__be32 word[4];
};

struct host {			/* the IP version, so that ::/0 has nothing to say of IPv4 */
	__be32 version, iid;
	union ip address;
};

/* Key of the tries; prefix_bits counts IP version and Instance-ID as well. What follows them is a multiple of 8 bytes: the
 * kernel puts the value right behind, and an atomic addition across a cache line costs most of a millisecond where the
 * machine traps it. */
struct eid {
	__u32 prefix_bits;
	struct host host;
};
#define WHOLE_EID (8 * sizeof(struct host))

enum { ACTION_STACK, ACTION_ENCAPSULATE, ACTION_REPLICATE, ACTION_DROP };

struct mapping {
	__u64 used;		/* nanoseconds of CLOCK_MONOTONIC */
	__u8 action, hops, reason, reserved[5];
	__u8 slot[SLOTS];
	union ip hop[HOPS];
};

/* What happens to packets for an EID of ours. PUNT is also what prefixes have: who is not here yet may come. */
enum { LOCAL_PUNT, LOCAL_DELIVER, LOCAL_DELIVER_AND_MIRROR, LOCAL_FORWARD };

struct local {
	__u64 heard;		/* nanoseconds: the host's last packet */
	__u64 sent_packets, sent_bytes, received_packets, received_bytes;
	__u32 ifindex;
	__u8 action, reserved;
	__u8 mac[ETH_ALEN], gateway_mac[ETH_ALEN];
	__u16 reserved2;
	__u32 reserved3;
};

struct configuration {
	__u32 tun;		/* where packets from the core wait for a decision; 0: nowhere */
	__be32 source4;
	union ip source6;
	__u8 petr;		/* packets for strangers are the daemon's business */
	__u8 reserved[7];
};

struct talk {			/* a local EID and an xTR that it talks to */
	__be32 iid;
	__u32 reserved;
	union ip eid, rloc;
};

struct talked {
	__u64 seen, told;
};


enum {
	ENCAPSULATED, DECAPSULATED, REENCAPSULATED, PUNTED, DROPPED_NEGATIVE, DROPPED_INNER_VERSION,
	DROPPED_INNER_LENGTH, DROPPED_INSTANCE, DROPPED_FOREIGN_DESTINATION, DROPPED_CONGESTION, DROPPED_FAILED, COUNTERS
};

#define MAP(NAME, TYPE, KEY, VALUE, ENTRIES, FLAGS)                                                                       \
	struct {                                                                                                           \
		__uint(type, TYPE);                                                                                        \
		__type(key, KEY);                                                                                          \
		__type(value, VALUE);                                                                                      \
		__uint(max_entries, ENTRIES);                                                                              \
		__uint(map_flags, FLAGS);                                                                                  \
	} NAME SEC(".maps")

/* Prefixes are in tries. Hosts, which no prefix can be longer than, are found in one step however many there are. */
MAP(map_cache, BPF_MAP_TYPE_LPM_TRIE, struct eid, struct mapping, 1 << 20, BPF_F_NO_PREALLOC);
MAP(map_cache_hosts, BPF_MAP_TYPE_HASH, struct host, struct mapping, 1 << 18, BPF_F_NO_PREALLOC);
MAP(local_eids, BPF_MAP_TYPE_LPM_TRIE, struct eid, struct local, 1 << 12, BPF_F_NO_PREALLOC);
MAP(local_hosts, BPF_MAP_TYPE_HASH, struct host, struct local, 1 << 17, BPF_F_NO_PREALLOC);
MAP(site_interfaces, BPF_MAP_TYPE_HASH, __u32, __be32, 256, 0);	/* ifindex -> Instance-ID */
MAP(instances, BPF_MAP_TYPE_HASH, __be32, __u32, 256, 0);
MAP(rlocs, BPF_MAP_TYPE_HASH, union ip, __u32, 64, 0);
MAP(settings, BPF_MAP_TYPE_ARRAY, __u32, struct configuration, 1, 0);
MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, COUNTERS, 0);
MAP(talkers, BPF_MAP_TYPE_LRU_HASH, struct talk, struct talked, 1 << 14, 0);
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} events SEC(".maps");			/* of struct talk: the xTR at `rloc` still sends to us for `eid`, which has left */

struct lisp_header {
	__u8 flags, nonce[3];
	__be32 instance_and_status;
};
struct outer4 {
	struct iphdr ip;
	struct udphdr udp;
	struct lisp_header lisp;
};
struct outer6 {
	struct ipv6hdr ip;
	struct udphdr udp;
	struct lisp_header lisp;
};

struct packet {			/* an IP packet, as much of it as decides where it goes */
	struct eid source, destination;
	__u32 length;		/* by its own header */
	__u32 largest;		/* of what it will be segmented into; else its length */
	__u8 version, tos, ttl;
	__be16 checksum, first, ttl_and_protocol;	/* IPv4: the words that change */
};

INLINE __u32 packets_in(struct __sk_buff *skb)
{
	return skb->gso_segs ?: 1;
}

INLINE void count(struct __sk_buff *skb, __u32 what)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &what);
	if (counter)
		*counter += packets_in(skb);
}

INLINE int drop(struct __sk_buff *skb, __u32 why)
{
	count(skb, why);
	return TC_ACT_SHOT;
}

INLINE void map_ipv4(union ip *ip, __be32 address)
{
	ip->word[0] = ip->word[1] = 0;
	ip->word[2] = bpf_htonl(0xffff);
	ip->word[3] = address;
}

INLINE int is_ipv4(const union ip *ip)
{
	return !(ip->word[0] | ip->word[1]) && ip->word[2] == bpf_htonl(0xffff);
}

/* An address that a packet can have beyond one link. */
INLINE int is_unicast(__u8 version, const union ip *ip)
{
	if (version == 4)
		return ip->byte[12] && ip->byte[12] < 224 && ip->byte[12] != 127;
	return ip->byte[0] != 0xff && !(ip->byte[0] == 0xfe && (ip->byte[1] & 0xc0) == 0x80) &&
	       (ip->word[0] | ip->word[1] | ip->word[2] | (ip->word[3] & bpf_htonl(~0xff)));
}

INLINE void place(struct eid *key, __u8 version, __be32 iid)
{
	key->prefix_bits = WHOLE_EID;
	key->host.version = bpf_htonl(version);
	key->host.iid = iid;
}

INLINE struct mapping *mapping_of(const struct eid *eid)
{
	struct mapping *m = bpf_map_lookup_elem(&map_cache_hosts, &eid->host);
	return m ?: bpf_map_lookup_elem(&map_cache, eid);
}

INLINE __be16 fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

INLINE __u8 traffic_class(const struct ipv6hdr *ip)
{
	return ip->priority << 4 | ip->flow_lbl[0] >> 4;
}

/* --- the inner packet ------------------------------------------------------------------------------------------- */

/* The largest packet after segmentation by the network card; 0 when we cannot say. */
INLINE __u32 segment_length(struct __sk_buff *skb, __u32 at, __u32 headers, __u8 protocol, __u32 length)
{
	__u8 offset;
	if (!skb->gso_size)
		return length;
	if (protocol == IPPROTO_UDP)
		return headers + sizeof(struct udphdr) + skb->gso_size;
	if (protocol != IPPROTO_TCP || bpf_skb_load_bytes(skb, at + headers + 12, &offset, 1))
		return 0;
	return headers + (offset >> 4) * 4 + skb->gso_size;
}

INLINE int read_ipv4(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct iphdr ip;
	if (bpf_skb_load_bytes(skb, at, &ip, sizeof ip))
		return 0;
	if (ip.version != 4 || ip.ihl != 5 || ip.frag_off & bpf_htons(MORE_OR_OFFSET))
		return 0;
	map_ipv4(&p->source.host.address, ip.saddr);
	map_ipv4(&p->destination.host.address, ip.daddr);
	p->length = bpf_ntohs(ip.tot_len);
	p->version = 4;
	p->tos = ip.tos;
	p->ttl = ip.ttl;
	p->checksum = ip.check;
	p->first = ((__be16 *)&ip)[0];
	p->ttl_and_protocol = ((__be16 *)&ip)[4];
	p->largest = segment_length(skb, at, sizeof ip, ip.protocol, p->length);
	return p->length >= sizeof ip && p->largest;
}

INLINE int read_ipv6(struct __sk_buff *skb, __u32 at, struct packet *p)
{
	struct ipv6hdr ip;
	if (bpf_skb_load_bytes(skb, at, &ip, sizeof ip))
		return 0;
	if (ip.version != 6 || ip.nexthdr == NEXT_FRAGMENT || !ip.payload_len)
		return 0;
	__builtin_memcpy(&p->source.host.address, &ip.saddr, 16);
	__builtin_memcpy(&p->destination.host.address, &ip.daddr, 16);
	p->length = bpf_ntohs(ip.payload_len) + sizeof ip;
	p->version = 6;
	p->tos = traffic_class(&ip);
	p->ttl = ip.hop_limit;
	p->first = ((__be16 *)&ip)[0];
	p->largest = segment_length(skb, at, sizeof ip, ip.nexthdr, p->length);
	return p->largest != 0;
}

/* Writes TOS and TTL into the packet at `at`. IPv4's header checksum follows them (RFC 1624). */
INLINE int rewrite(struct __sk_buff *skb, __u32 at, const struct packet *p, __u8 tos, __u8 ttl)
{
	__be16 first, last;
	if (p->version == 4) {
		first = (p->first & bpf_htons(0xff00)) | bpf_htons(tos);
		last = (p->ttl_and_protocol & bpf_htons(0x00ff)) | bpf_htons(ttl << 8);
		__u64 sum = (__u16)~p->checksum;
		sum += (__u16)~p->first + first + (__u16)~p->ttl_and_protocol + last;
		__be16 tail[2] = { last, fold(sum) };
		return (tos != p->tos && bpf_skb_store_bytes(skb, at, &first, 2, BPF_F_RECOMPUTE_CSUM)) ||
		       bpf_skb_store_bytes(skb, at + 8, tail, 4, BPF_F_RECOMPUTE_CSUM);
	}
	first = (p->first & bpf_htons(0xf00f)) | bpf_htons(tos << 4);
	return (tos != p->tos && bpf_skb_store_bytes(skb, at, &first, 2, BPF_F_RECOMPUTE_CSUM)) ||
	       bpf_skb_store_bytes(skb, at + 7, &ttl, 1, BPF_F_RECOMPUTE_CSUM);
}

/* --- who talks to whom ------------------------------------------------------------------------------------------- */

/* Returns 1 when the daemon has not been told of this pair for a while, and `tell` asks for it. */
INLINE int note(__be32 iid, const union ip *eid, const union ip *rloc, __u64 now, int tell)
{
	struct talk key = { .iid = iid, .eid = *eid, .rloc = *rloc };
	struct talked *known = bpf_map_lookup_elem(&talkers, &key);
	if (!known) {
		struct talked first = { .seen = now, .told = tell ? now : 0 };
		bpf_map_update_elem(&talkers, &key, &first, BPF_ANY);
		return tell;
	}
	if (now - known->seen > COARSE)
		known->seen = now;
	if (!tell || (known->told && now - known->told < TELL_AGAIN))
		return 0;
	known->told = now;
	return 1;
}

/* --- the outer packet -------------------------------------------------------------------------------------------- */

/* The route to an RLOC as for a packet of our own; 0 when there is one, and `length` fits. */
INLINE long route(struct __sk_buff *skb, const struct configuration *configured, const union ip *rloc, __be16 port,
		  __u32 length, __u32 flags, struct bpf_fib_lookup *found)
{
	__builtin_memset(found, 0, sizeof *found);
	found->ifindex = LOOPBACK;
	found->l4_protocol = IPPROTO_UDP;
	found->sport = port;
	found->dport = bpf_htons(DATA_PORT);
	found->tot_len = length;
	if (is_ipv4(rloc)) {
		found->family = FAMILY_IPV4;
		found->ipv4_src = configured->source4;
		found->ipv4_dst = rloc->word[3];
	} else {
		found->family = FAMILY_IPV6;
		__builtin_memcpy(found->ipv6_src, &configured->source6, 16);
		__builtin_memcpy(found->ipv6_dst, rloc, 16);
	}
	return bpf_fib_lookup(skb, found, sizeof *found, flags);
}

/* By the next hop of the route; the kernel's neighbour table resolves it and keeps it fresh. */
INLINE int transmit(const struct bpf_fib_lookup *found)
{
	struct bpf_redir_neigh next = { .nh_family = found->family };
	__builtin_memcpy(next.ipv6_nh, found->ipv6_dst, 16);
	return bpf_redirect_neigh(found->ifindex, &next, sizeof next, 0);
}

INLINE void checksum_ipv4(struct iphdr *ip)
{
	ip->check = 0;
	ip->check = fold(bpf_csum_diff(0, 0, (void *)ip, sizeof *ip, 0));
}

struct envelope {
	__be16 port;
	__u8 tos, ttl;
	__be32 iid;
	__u32 length;		/* of the inner packet */
};

INLINE void fill_udp(struct udphdr *udp, struct lisp_header *lisp, const struct envelope *e)
{
	udp->source = e->port;
	udp->dest = bpf_htons(DATA_PORT);
	udp->len = bpf_htons(e->length + sizeof *udp + sizeof *lisp);	/* RFC 9300 5.3: the checksum is zero */
	lisp->flags = e->iid ? FLAG_INSTANCE : 0;
	lisp->instance_and_status = bpf_htonl(bpf_ntohl(e->iid) << 8);
}

INLINE int wrap_ipv4(struct __sk_buff *skb, const struct configuration *configured, const union ip *rloc,
		     const struct envelope *e, struct outer4 *o)
{
	__builtin_memset(o, 0, sizeof *o);
	fill_udp(&o->udp, &o->lisp, e);
	o->ip.version = 4;
	o->ip.ihl = 5;
	o->ip.tos = e->tos;
	o->ip.tot_len = bpf_htons(e->length + sizeof *o);
	o->ip.frag_off = bpf_htons(DONT_FRAGMENT);
	o->ip.ttl = e->ttl;
	o->ip.protocol = IPPROTO_UDP;
	o->ip.saddr = configured->source4;
	o->ip.daddr = rloc->word[3];
	checksum_ipv4(&o->ip);
	return bpf_skb_adjust_room(skb, sizeof *o, BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 |
					   BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_NO_CSUM_RESET) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, o, sizeof *o, BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
}

INLINE int wrap_ipv6(struct __sk_buff *skb, const struct configuration *configured, const union ip *rloc,
		     const struct envelope *e)
{
	struct outer6 o = {};
	fill_udp(&o.udp, &o.lisp, e);
	o.ip.version = 6;
	o.ip.priority = e->tos >> 4;
	o.ip.flow_lbl[0] = e->tos << 4;
	o.ip.payload_len = bpf_htons(e->length + sizeof o.udp + sizeof o.lisp);
	o.ip.nexthdr = IPPROTO_UDP;
	o.ip.hop_limit = e->ttl;
	__builtin_memcpy(&o.ip.saddr, &configured->source6, 16);
	__builtin_memcpy(&o.ip.daddr, rloc, 16);
	return bpf_skb_adjust_room(skb, sizeof o, BPF_ADJ_ROOM_MAC,
				   BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 |
					   BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_NO_CSUM_RESET) ||
	       bpf_skb_store_bytes(skb, ETH_HLEN, &o, sizeof o, BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
}

/* --- site to core ------------------------------------------------------------------------------------------------ */

struct copy {			/* where a replica leaves */
	__u32 ifindex;
	struct ethhdr frame;
};

/* The outer packet goes to hop 0 and a clone to each of the others; all of them have the family of hop 0. */
INLINE int send_copies(struct __sk_buff *skb, struct configuration *configured, struct mapping *m, struct packet *p,
		       struct envelope *e, int ipv4)
{
	struct copy copies[COPIES - 1] = {};
	struct bpf_fib_lookup found;
	struct outer4 outer;
	__u32 size = ipv4 ? sizeof(struct outer4) : sizeof(struct outer6);
	int i;

#pragma unroll
	for (i = 1; i < COPIES; i++) {
		if (i >= m->hops)
			break;
		/* a clone is not resolved by the kernel: when a neighbour is missing, the slow path has it resolved */
		if (is_ipv4(&m->hop[i]) != ipv4 ||
		    route(skb, configured, &m->hop[i], e->port, p->largest + size, 0, &found))
			return TC_ACT_OK;
		copies[i - 1].ifindex = found.ifindex;
		__builtin_memcpy(copies[i - 1].frame.h_dest, found.dmac, ETH_ALEN);
		__builtin_memcpy(copies[i - 1].frame.h_source, found.smac, ETH_ALEN);
		copies[i - 1].frame.h_proto = ipv4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	}
	if (route(skb, configured, &m->hop[0], e->port, p->largest + size, FIB_LOOKUP_SKIP_NEIGH, &found))
		return TC_ACT_OK;
	if (rewrite(skb, ETH_HLEN, p, p->tos, e->ttl) ||
	    (ipv4 ? wrap_ipv4(skb, configured, &m->hop[0], e, &outer) : wrap_ipv6(skb, configured, &m->hop[0], e)))
		return drop(skb, DROPPED_FAILED);
#pragma unroll
	for (i = COPIES - 1; i >= 0; i--) {	/* hop 0 last: it keeps the packet itself */
		if (i >= m->hops)
			continue;
		if (ipv4) {
			outer.ip.daddr = m->hop[i].word[3];
			checksum_ipv4(&outer.ip);
			bpf_skb_store_bytes(skb, ETH_HLEN, &outer.ip, sizeof outer.ip, BPF_F_RECOMPUTE_CSUM);
		} else {
			bpf_skb_store_bytes(skb, ETH_HLEN + __builtin_offsetof(struct ipv6hdr, daddr), &m->hop[i], 16,
					    BPF_F_RECOMPUTE_CSUM);
		}
		if (!i)
			break;
		bpf_skb_store_bytes(skb, 0, &copies[i - 1].frame, ETH_HLEN, 0);
		if (!bpf_clone_redirect(skb, copies[i - 1].ifindex, 0))
			count(skb, ENCAPSULATED);
	}
	count(skb, ENCAPSULATED);
	return transmit(&found);
}

INLINE int send_one(struct __sk_buff *skb, struct configuration *configured, union ip *rloc, struct packet *p,
		    struct envelope *e)
{
	struct bpf_fib_lookup found;
	struct outer4 outer;
	int ipv4 = is_ipv4(rloc);
	__u32 size = ipv4 ? sizeof outer : sizeof(struct outer6);

	if (route(skb, configured, rloc, e->port, p->largest + size, FIB_LOOKUP_SKIP_NEIGH, &found))
		return TC_ACT_OK;	/* too big, no route: the slow path answers the host */
	if (rewrite(skb, ETH_HLEN, p, p->tos, e->ttl) ||
	    (ipv4 ? wrap_ipv4(skb, configured, rloc, e, &outer) : wrap_ipv6(skb, configured, rloc, e)))
		return drop(skb, DROPPED_FAILED);
	count(skb, ENCAPSULATED);
	return transmit(&found);
}

SEC("tc") int lisp_encap(struct __sk_buff *skb)
{
	__u32 zero = 0, ifindex = skb->ifindex;
	struct packet p = {};
	__be32 *iid = bpf_map_lookup_elem(&site_interfaces, &ifindex);
	struct configuration *configured = bpf_map_lookup_elem(&settings, &zero);

	if (!iid || !configured || skb->pkt_type != PACKET_TO_US || skb->vlan_present)
		return TC_ACT_OK;
	if (skb->protocol == bpf_htons(ETH_P_IP) ? !read_ipv4(skb, ETH_HLEN, &p) :
	    skb->protocol == bpf_htons(ETH_P_IPV6) ? !read_ipv6(skb, ETH_HLEN, &p) : 1)
		return TC_ACT_OK;
	place(&p.source, p.version, *iid);
	place(&p.destination, p.version, *iid);

	struct mapping *m = mapping_of(&p.destination);
	__u64 now = bpf_ktime_get_coarse_ns();
	if (m && now - m->used > COARSE)
		m->used = now;
	if (!m || m->action == ACTION_STACK)
		return TC_ACT_OK;	/* a miss, a host of this site, or no EID at all */
	if (p.ttl <= 1 || p.length + sizeof(struct outer6) > 0xffff)
		return TC_ACT_OK;
	struct local *l = bpf_map_lookup_elem(&local_hosts, &p.source.host);
	if (!l || l->ifindex != ifindex)
		return TC_ACT_OK;	/* who is that? The slow path judges, and tells */
	if (p.length + ETH_HLEN != skb->len) {
		if (p.length + ETH_HLEN > skb->len || skb->gso_size)
			return TC_ACT_OK;
		if (bpf_skb_change_tail(skb, p.length + ETH_HLEN, 0))	/* a short frame's padding */
			return drop(skb, DROPPED_FAILED);
	}
	if (m->action == ACTION_DROP)
		return drop(skb, DROPPED_NEGATIVE);

	__u32 flow = bpf_get_hash_recalc(skb);
	struct envelope e = {
		.port = bpf_htons(FIRST_SOURCE_PORT | (flow & 0x3fff)),
		.tos = p.tos,		/* RFC 6040 4.1, normal mode: ECN is copied, and so is DSCP */
		.ttl = p.ttl - 1,	/* RFC 9300 5.3: copied, after we have forwarded it */
		.iid = *iid,
		.length = p.length,
	};
	__u32 hop = m->slot[(flow >> 14) & (SLOTS - 1)] & (HOPS - 1);
	if (now - l->heard > COARSE)
		l->heard = now;
	__sync_fetch_and_add(&l->sent_packets, packets_in(skb));
	__sync_fetch_and_add(&l->sent_bytes, p.length);
	if (m->action == ACTION_REPLICATE) {
		if (is_ipv4(&m->hop[0]))
			return send_copies(skb, configured, m, &p, &e, 1);
		return send_copies(skb, configured, m, &p, &e, 0);
	}
	note(*iid, &p.source.host.address, &m->hop[hop], now, 0);
	return send_one(skb, configured, &m->hop[hop], &p, &e);
}

/* --- core to site ------------------------------------------------------------------------------------------------ */

struct arrival {		/* what the outer headers say */
	union ip sender;
	__u32 size;		/* of the outer headers, the LISP header among them */
	__u8 tos, ttl, version;
};

/* 1 when the frame carries a plain LISP packet for one of our RLOCs. */
INLINE int read_outer(struct __sk_buff *skb, struct arrival *a, struct udphdr *udp, struct lisp_header *lisp)
{
	union ip to;
	__u32 length;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct outer4 o;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &o, sizeof o))
			return 0;
		if (o.ip.version != 4 || o.ip.ihl != 5 || o.ip.protocol != IPPROTO_UDP ||
		    o.ip.frag_off & bpf_htons(MORE_OR_OFFSET) || o.udp.dest != bpf_htons(DATA_PORT) ||
		    fold(bpf_csum_diff(0, 0, (void *)&o.ip, sizeof o.ip, 0)))
			return 0;
		map_ipv4(&to, o.ip.daddr);
		map_ipv4(&a->sender, o.ip.saddr);
		*udp = o.udp;
		*lisp = o.lisp;
		length = bpf_ntohs(o.ip.tot_len) - sizeof o.ip;
		a->size = sizeof o;
		a->version = 4;
		a->tos = o.ip.tos;
		a->ttl = o.ip.ttl;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct outer6 o;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &o, sizeof o))
			return 0;
		if (o.ip.version != 6 || o.ip.nexthdr != IPPROTO_UDP || o.udp.dest != bpf_htons(DATA_PORT))
			return 0;
		__builtin_memcpy(&to, &o.ip.daddr, 16);
		__builtin_memcpy(&a->sender, &o.ip.saddr, 16);
		*udp = o.udp;
		*lisp = o.lisp;
		length = bpf_ntohs(o.ip.payload_len);
		a->size = sizeof o;
		a->version = 6;
		a->tos = traffic_class(&o.ip);
		a->ttl = o.ip.hop_limit;
	} else {
		return 0;
	}
	/* The lengths agree, or the daemon says what is wrong: several datagrams in one buffer (UDP GRO) look so as well. */
	return bpf_ntohs(udp->len) == length && skb->len - ETH_HLEN - a->size + sizeof *udp + sizeof *lisp == length &&
	       !(lisp->flags & FLAGS_UNUSUAL) && bpf_map_lookup_elem(&rlocs, &to) &&
	       !bpf_map_lookup_elem(&rlocs, &a->sender);
}

/* RFC 6040 4.2: the inner packet's ECN after decapsulation, or -1 when it must be dropped. */
INLINE int merged_ecn(__u8 inner, __u8 outer)
{
	inner &= 3;
	outer &= 3;
	if (outer == CE)
		return inner ? CE : -1;
	if (inner == 2 && outer == 1)	/* ECT(0) inside, ECT(1) outside */
		return 1;
	return inner;
}

/* To the host, as the routing of the stack would have it. */
INLINE int deliver(struct __sk_buff *skb, const struct packet *p, const struct arrival *a, const struct local *l, __u8 tos,
		   __u8 ttl)
{
	__u32 mtu = 0;
	struct ethhdr frame;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | (p->version == 4 ? ROOM_DECAP_L3_IPV4 : ROOM_DECAP_L3_IPV6);

	if (ttl <= 1 || bpf_check_mtu(skb, l->ifindex, &mtu, -(int)a->size, 0))
		return TC_ACT_OK;	/* the stack tells the sender */
	__builtin_memcpy(frame.h_dest, l->mac, ETH_ALEN);
	__builtin_memcpy(frame.h_source, l->gateway_mac, ETH_ALEN);
	frame.h_proto = p->version == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	if (rewrite(skb, ETH_HLEN + a->size, p, tos, ttl - 1) ||
	    (a->version == 4 ? bpf_skb_adjust_room(skb, -(int)sizeof(struct outer4), BPF_ADJ_ROOM_MAC, flags) :
			       bpf_skb_adjust_room(skb, -(int)sizeof(struct outer6), BPF_ADJ_ROOM_MAC, flags)) ||
	    bpf_skb_store_bytes(skb, 0, &frame, ETH_HLEN, 0))
		return drop(skb, DROPPED_FAILED);
	count(skb, DECAPSULATED);
	return bpf_redirect(l->ifindex, 0);
}

/* As it came, to the daemon. By the TUN and not by the socket: the kernel segments and checksums what leaves by a device,
 * and on veth links packets come with neither done. */
INLINE int punt(struct __sk_buff *skb, const struct configuration *configured)
{
	if (!configured->tun)
		return TC_ACT_OK;
	count(skb, PUNTED);
	return bpf_redirect(configured->tun, 0);
}

/* To the daemon as well, which knows it by its port: packets that were not delivered may be on the same way. */
INLINE void copy(struct __sk_buff *skb, const struct configuration *configured, __u32 size)
{
	__u32 at = ETH_HLEN + size - sizeof(struct lisp_header) - sizeof(struct udphdr) +
		   __builtin_offsetof(struct udphdr, dest);
	__be16 port = bpf_htons(COPY_PORT);
	if (bpf_skb_store_bytes(skb, at, &port, sizeof port, 0))
		return;
	bpf_clone_redirect(skb, configured->tun, 0);
	port = bpf_htons(DATA_PORT);
	bpf_skb_store_bytes(skb, at, &port, sizeof port, 0);
}

/* To where the EID is now: the outer header gets other addresses, and one hop less (RFC 9300 5.3). */
INLINE int send_on(struct __sk_buff *skb, const struct configuration *configured, const struct packet *p, __be32 iid,
		   const struct arrival *a, const struct udphdr *udp, __u8 tos, __u8 ttl)
{
	struct bpf_fib_lookup found;
	struct mapping *m = mapping_of(&p->destination);

	if (!m || m->action != ACTION_ENCAPSULATE || a->ttl <= 1)
		return punt(skb, configured);
	__u32 hash = bpf_ntohs(udp->source);	/* the sender's flow hash is as good as ours */
	union ip *rloc = &m->hop[m->slot[hash & (SLOTS - 1)] & (HOPS - 1)];
	if (is_ipv4(rloc) != (a->version == 4) ||
	    route(skb, configured, rloc, udp->source, p->largest + a->size, FIB_LOOKUP_SKIP_NEIGH, &found))
		return punt(skb, configured);
	if (note(iid, &p->destination.host.address, &a->sender, bpf_ktime_get_coarse_ns(), 1)) {
		struct talk event = { .iid = iid, .eid = p->destination.host.address, .rloc = a->sender };
		bpf_ringbuf_output(&events, &event, sizeof event, 0);
	}
	if (rewrite(skb, ETH_HLEN + a->size, p, tos, ttl))
		return drop(skb, DROPPED_FAILED);
	if (a->version == 4) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof ip))
			return drop(skb, DROPPED_FAILED);
		ip.tos = tos;
		ip.ttl = a->ttl - 1;
		ip.saddr = configured->source4;
		ip.daddr = rloc->word[3];
		checksum_ipv4(&ip);
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof ip, BPF_F_RECOMPUTE_CSUM))
			return drop(skb, DROPPED_FAILED);
	} else {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof ip))
			return drop(skb, DROPPED_FAILED);
		ip.priority = tos >> 4;
		ip.flow_lbl[0] = (tos << 4) | (ip.flow_lbl[0] & 15);
		ip.hop_limit = a->ttl - 1;
		__builtin_memcpy(&ip.saddr, &configured->source6, 16);
		__builtin_memcpy(&ip.daddr, rloc, 16);
		if (bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof ip, BPF_F_RECOMPUTE_CSUM))
			return drop(skb, DROPPED_FAILED);
	}
	__be16 no_checksum = 0;		/* it covered other addresses */
	if (udp->check && bpf_skb_store_bytes(skb, ETH_HLEN + a->size - 10, &no_checksum, 2, BPF_F_RECOMPUTE_CSUM))
		return drop(skb, DROPPED_FAILED);
	count(skb, REENCAPSULATED);
	return transmit(&found);
}

SEC("tc") int lisp_decap(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct arrival a = {};
	struct udphdr udp;
	struct lisp_header lisp;
	struct packet p = {};
	__u8 first = 0;
	struct configuration *configured = bpf_map_lookup_elem(&settings, &zero);

	if (!configured || skb->pkt_type != PACKET_TO_US || skb->vlan_present || !read_outer(skb, &a, &udp, &lisp))
		return TC_ACT_OK;
	/* Instance-ID 0 is the same as none. Without I the field is all status bits. */
	__be32 iid = lisp.flags & FLAG_INSTANCE ? bpf_htonl(bpf_ntohl(lisp.instance_and_status) >> 8) : 0;
	bpf_skb_load_bytes(skb, ETH_HLEN + a.size, &first, 1);
	if (first >> 4 != 4 && first >> 4 != 6)
		return drop(skb, DROPPED_INNER_VERSION);
	if (first >> 4 == 4 ? !read_ipv4(skb, ETH_HLEN + a.size, &p) : !read_ipv6(skb, ETH_HLEN + a.size, &p))
		return TC_ACT_OK;
	if (!is_unicast(p.version, &p.source.host.address))
		return TC_ACT_OK;
	if (p.length != skb->len - ETH_HLEN - a.size)
		return p.length > skb->len - ETH_HLEN - a.size && !skb->gso_size ? drop(skb, DROPPED_INNER_LENGTH) : TC_ACT_OK;

	place(&p.destination, p.version, iid);
	struct local *l = bpf_map_lookup_elem(&local_hosts, &p.destination.host);
	if (!l)
		l = bpf_map_lookup_elem(&local_eids, &p.destination);
	if (!l && !bpf_map_lookup_elem(&instances, &iid))
		return drop(skb, DROPPED_INSTANCE);
	if (!l)
		return configured->petr ? punt(skb, configured) : drop(skb, DROPPED_FOREIGN_DESTINATION);
	if (l->action == LOCAL_PUNT)
		return punt(skb, configured);
	int ecn = merged_ecn(p.tos, a.tos);
	if (ecn < 0)
		return drop(skb, DROPPED_CONGESTION);
	__u8 tos = (a.tos & ~3) | ecn;	/* RFC 9300 5.3: DSCP is copied back */
	__u8 ttl = p.ttl < a.ttl ? p.ttl : a.ttl;	/* RFC 9300 5.3 */
	if (l->action == LOCAL_FORWARD)
		return send_on(skb, configured, &p, iid, &a, &udp, tos, ttl);
	note(iid, &p.destination.host.address, &a.sender, bpf_ktime_get_coarse_ns(), 0);
	__sync_fetch_and_add(&l->received_packets, packets_in(skb));
	__sync_fetch_and_add(&l->received_bytes, p.length);
	if (l->action == LOCAL_DELIVER_AND_MIRROR && configured->tun)
		copy(skb, configured, a.size);
	return deliver(skb, &p, &a, l, tos, ttl);
}

char licensed[] SEC("license") = "Dual BSD/GPL";
