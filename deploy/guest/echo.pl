# The guest's service: answers every UDP datagram on port 7007 and every byte of a TCP connection on 7008 with itself.
use strict;
use Socket qw(:DEFAULT IPPROTO_TCP TCP_NODELAY inet_pton pack_sockaddr_in6);

sub listening {
    my ($kind, $port) = @_;
    socket(my $socket, AF_INET6, $kind, 0) or die "socket: $!"; # IPv4 comes in mapped
    setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1);
    bind($socket, pack_sockaddr_in6($port, inet_pton(AF_INET6, '::'))) or die "bind $port: $!";
    return $socket;
}

my $datagrams = listening(SOCK_DGRAM, 7007);
my $connections = listening(SOCK_STREAM, 7008);
listen($connections, 16) or die "listen: $!";
my %streams; # by file number

$| = 1;
open(my $console, '>', '/dev/console');
syswrite($console, "lispfmc-guest ready\n");

while (1) {
    my $wanted = '';
    vec($wanted, $_, 1) = 1 for fileno($datagrams), fileno($connections), keys %streams;
    next if select(my $ready = $wanted, undef, undef, undef) < 1;
    if (vec($ready, fileno($datagrams), 1)) {
        my $from = recv($datagrams, my $data, 65535, 0);
        send($datagrams, $data, 0, $from) if defined $from;
    }
    if (vec($ready, fileno($connections), 1) && accept(my $stream, $connections)) {
        setsockopt($stream, IPPROTO_TCP, TCP_NODELAY, 1);
        $streams{fileno($stream)} = $stream;
    }
    for my $number (grep { $_ != fileno($connections) && vec($ready, $_, 1) } keys %streams) {
        my ($stream, $data) = $streams{$number};
        unless (sysread($stream, $data, 65536) && syswrite($stream, $data)) {
            delete $streams{$number};
            close($stream);
        }
    }
}
