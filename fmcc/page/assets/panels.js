// The lists beside the picture.

import { byId, html, ms, svg } from './elements.js'

const EVENTS_SHOWN = 200, MOVES_SHOWN = 20

export function showStatus({ status }) {
  const facts = { mode: status.mode, policy: status.policy, scheme: status.scheme, users: status.users, services: status.services }
  byId('status').replaceChildren(...Object.entries(facts).map(([name, value]) =>
    html('div', {}, html('dt', {}, name), html('dd', {}, String(value)))))
}

// Which part is down, and since when.
export function showParts(parts, now) {
  const down = parts.filter(part => !part.up)
  const text = down.map(part => `${part.name} (${part.kind}) is down since ${clock(part.since)}, ${ago(now - part.since)}`).join(' · ')
  byId('parts').hidden = down.length === 0
  if (byId('parts').textContent !== text) byId('parts').textContent = text
}

export function showServices({ placements }, { onMove }) {
  byId('services').tBodies[0].replaceChildren(...placements.map(one => html('tr', { 'data-service': one.service },
    html('td', {}, one.service), html('td', {}, one.user ?? '–'), html('td', {}, one.datacenter),
    html('td', { class: one.open ? 'moving' : '' }, one.open ? `to ${one.to}: ${one.state}` : one.state),
    html('td', {}, html('button', { type: 'button', disabled: one.open, onclick: () => onMove(one) }, 'Move', html('span', { class: 'hidden' }, ` ${one.service}`))),
  )))
}

export function showMoves({ moves }, { onAbort }) {
  byId('move-list').replaceChildren(...moves.slice(0, MOVES_SHOWN).map(move => html('li', { 'data-move': move.id, 'data-state': move.state },
    html('p', {}, html('strong', {}, `${move.service}: ${move.from} → ${move.to} `),
      html('span', { class: move.open ? 'moving' : move.state === 'failed' ? 'bad' : 'soft' }, move.state)),
    html('p', { class: 'soft' }, [`scheme ${move.scheme}`, `driver ${move.driver}${move.emulated ? ' (emulated)' : ''}`,
      `stood still ${ms(move.blackout_events_ms)}`].join(' · ')),
    move.packets ? html('p', {}, packets(move.packets)) : null,
    move.reason ? html('p', { class: 'bad' }, move.reason) : null,
    html('ol', { class: 'phases' }, ...move.phases.map(phase => html('li', {}, html('b', {}, phase.name), ` ${ms(phase.at_ms)}`))),
    move.open ? html('div', { class: 'buttons' }, html('button', { type: 'button', onclick: () => onAbort(move) }, 'Abort')) : null,
  )))
  if (!moves.length) byId('move-list').append(html('li', { class: 'soft' }, 'No service has moved yet.'))
}

const packets = ({ held, forwarded, replayed, lost }) =>
  `packets: ${held} held, ${forwarded} forwarded, ${replayed} replayed, ${lost} lost`

export function showHistory({ moves }) {
  const done = moves.filter(move => move.blackout_events_ms !== null).slice(0, 60).reverse()
  byId('history').hidden = done.length === 0
  byId('history').querySelector('svg')?.remove()
  if (!done.length) return
  const most = Math.max(...done.map(move => move.blackout_events_ms)), wide = 600 / Math.max(done.length, 12)
  byId('history').prepend(svg('svg', { viewBox: '0 0 600 70', preserveAspectRatio: 'none', role: 'img', 'aria-label': `at most ${ms(most)}` },
    ...done.map((move, number) => svg('rect', {
      x: number * wide + 1, width: wide - 2, y: 70 - 66 * move.blackout_events_ms / most, height: 66 * move.blackout_events_ms / most, fill: 'var(--access)',
    }, svg('title', {}, `${move.service}: ${ms(move.blackout_events_ms)} (${move.scheme})`)))))
}

export function showDecisions({ decisions }) {
  byId('decision-list').replaceChildren(...decisions.map(one => html('li', {},
    html('p', {}, html('strong', {}, `${one.service}: ${one.decision === 'move' ? `move to ${one.to}` : `stay at ${one.from}`} `),
      html('span', { class: 'soft' }, `${one.user} at ${one.site}${one.mode === 'observe' ? ' · observed only' : ''}`)),
    html('p', {}, one.reason),
    html('p', { class: 'soft' }, `rule ${one.rule}${one.runner_up ? ` · else ${one.runner_up}` : ''}`))))
  if (!decisions.length) byId('decision-list').append(html('li', { class: 'soft' }, 'Nothing has been decided yet.'))
}

export function showEvent(event) {
  const fields = Object.entries(event.fields).map(([name, value]) => `${name}=${typeof value === 'object' ? JSON.stringify(value) : value}`)
  const list = byId('event-list')
  list.prepend(html('li', { 'data-id': event.id, 'data-name': event.name, 'data-time': event.time }, `${clock(event.time)} ${event.name} ${fields.join(' ')}`))
  while (list.children.length > EVENTS_SHOWN) list.lastElementChild.remove()
}

const clock = seconds => new Date(seconds * 1000).toLocaleTimeString()
const ago = seconds => seconds < 90 ? `${Math.max(0, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`
