// The network as a picture: access networks to the left, data centres to the right, the control plane above; who is
// where, which tunnels carry a user's packets, and what is on its way.

import { ms, svg } from './elements.js'

const WIDTH = 900, BOX = { width: 230, height: 104 }, ROW = 140, TOP = 96, LEFT = 20

export function draw(picture, state) {
  const at = places(state.sites)
  const rows = Math.max(1, ...['access', 'datacenter'].map(kind => state.sites.filter(site => site.kind === kind).length))
  picture.setAttribute('viewBox', `0 0 ${WIDTH} ${TOP + rows * ROW}`)
  picture.replaceChildren(
    ...tunnels(state, at), ...copies(state, at), ...state.sites.map(site => box(site, at, state)), controller(state),
  )
}

function places(sites) {
  const at = new Map()
  for (const [kind, x] of [['access', LEFT], ['datacenter', WIDTH - BOX.width - LEFT]]) {
    sites.filter(site => site.kind === kind).forEach((site, row) => at.set(site.name, { x, y: TOP + row * ROW }))
  }
  return at
}

function tunnels({ distances, users, placements }, at) {
  const used = new Set()
  for (const placement of placements) {
    const user = users.find(one => one.name === placement.user)
    if (user?.site) used.add([user.site, placement.datacenter].sort().join(' '))
  }
  return distances.filter(({ a, b }) => at.has(a) && at.has(b)).flatMap(({ a, b, ms: rtt, source }) => {
    const carries = used.has([a, b].sort().join(' '))
    const [from, to] = at.get(a).x <= at.get(b).x ? [a, b] : [b, a]
    if (at.get(a).x === at.get(b).x) return carries ? [line(from, to, at, 'tunnel used')] : []
    const start = edge(from, at, true), end = edge(to, at, false)
    const label = svg('text', {
      class: carries ? '' : 'small', 'text-anchor': 'middle',
      x: start.x + (end.x - start.x) * .32, y: start.y + (end.y - start.y) * .32 - 7,
    }, ms(rtt))
    label.append(svg('title', {}, `${a} – ${b}: ${ms(rtt)}, ${source}`))
    return [line(from, to, at, carries ? 'tunnel used' : 'tunnel'), label]
  })
}

function copies({ moves }, at) {
  return moves.filter(move => move.open && at.has(move.from) && at.has(move.to)).map(move => {
    const x = at.get(move.from).x + BOX.width - 30
    return svg('line', { class: 'copying', x1: x, x2: x, y1: at.get(move.from).y + 52, y2: at.get(move.to).y + 52 })
  })
}

function line(from, to, at, kind) {
  const start = edge(from, at, true), end = edge(to, at, false)
  return svg('line', { class: kind, x1: start.x, y1: start.y, x2: end.x, y2: end.y })
}

const edge = (name, at, right) => ({ x: at.get(name).x + (right ? BOX.width : 0), y: at.get(name).y + BOX.height / 2 })

function box(site, at, { users, placements }) {
  const { x, y } = at.get(site.name)
  const here = [
    ...users.filter(user => user.site === site.name).map(user => ({ name: user.name, kind: 'user' })),
    ...placements.filter(one => one.datacenter === site.name)
      .map(one => ({ name: one.service, kind: one.move && one.open ? 'service moves' : 'service' })),
  ]
  const said = `${site.name}, ${site.kind === 'access' ? 'access network' : 'data centre'}: ${here.map(one => one.name).join(', ') || 'empty'}`
  return svg('g', { tabindex: 0, role: 'img', 'aria-label': said, 'data-site': site.name },
    svg('rect', { class: `site ${site.kind}`, x, y, width: BOX.width, height: BOX.height, rx: 10 }),
    svg('text', { x: x + 12, y: y + 24 }, site.name),
    svg('text', { class: 'small rloc', x: x + BOX.width - 12, y: y + 24, 'text-anchor': 'end' }, site.rlocs[0] ?? ''),
    ...here.slice(0, 6).flatMap((one, number) => occupant(one, x + 16 + (number % 2) * 108, y + 48 + Math.floor(number / 2) * 20)),
    here.length > 6 ? svg('text', { class: 'small', x: x + BOX.width - 12, y: y + BOX.height - 8, 'text-anchor': 'end' }, `and ${here.length - 6} more`) : null,
  )
}

function occupant({ name, kind }, x, y) {
  const shape = kind === 'user'
    ? svg('circle', { class: kind, cx: x, cy: y - 5, r: 6 })
    : svg('rect', { class: kind, x: x - 6, y: y - 11, width: 12, height: 12, rx: 2 })
  return [shape, svg('text', { class: 'small', x: x + 12, y }, name.length > 12 ? `${name.slice(0, 11)}…` : name)]
}

function controller({ status }) {
  const x = WIDTH / 2 - 110
  return svg('g', { role: 'img', 'aria-label': 'controller and mapping system' },
    svg('rect', { class: 'site control', x, y: 10, width: 220, height: 56, rx: 10 }),
    svg('text', { x: x + 110, y: 33, 'text-anchor': 'middle' }, status?.name ?? 'controller'),
    svg('text', { class: 'small', x: x + 110, y: 54, 'text-anchor': 'middle' }, 'Map-Server · controller'),
  )
}
