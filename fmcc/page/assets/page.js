// The page: state is asked for when it may have changed, which the controller's events say; nothing is polled.

import { byId, html } from './elements.js'
import { draw } from './picture.js'
import { showDecisions, showEvent, showHistory, showMoves, showParts, showServices, showStatus } from './panels.js'
import { follow } from './stream.js'

const TOGETHER_MS = 50 // events that come in one burst are one look at the state
const TABLES = ['sites', 'users', 'placements', 'distances', 'moves', 'decisions']
const state = { sites: [], users: [], placements: [], distances: [], moves: [], decisions: [], status: null }
const given = new URLSearchParams(location.hash.slice(1)).get('token')
if (given) { // of the URL that `lispfmc page` prints; it does not stay in the address
  sessionStorage.setItem('token', given)
  history.replaceState(null, '', location.pathname)
}
let token = sessionStorage.getItem('token') ?? '', following = null, due = null, lostSince = null

async function ask(path, options = {}) {
  const headers = { ...options.headers }
  if (token) headers.Authorization = `Bearer ${token}`
  const response = await fetch(`v1/${path}`, { ...options, headers, cache: 'no-store' })
  const answer = await response.json()
  if (response.ok) return answer
  const { what, why, do: todo } = answer.error
  throw Object.assign(new Error([what, why, todo].filter(Boolean).join('; ')), { status: response.status })
}

const post = (path, body) => ask(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })

async function look() {
  due = null
  try {
    const [status, ...tables] = await Promise.all(['status', ...TABLES].map(path => ask(path)))
    state.status = status
    TABLES.forEach((name, number) => { state[name] = tables[number].items })
    relate()
    show()
  } catch (error) {
    if (error.status === 401 || error.status === 403) return refused(error.status)
    say(error.message)
  }
}

// What the lists say of one another: a placement knows its move, and the newest move comes first.
function relate() {
  state.moves = state.moves.map(move => ({ ...move, open: !move.ended })).reverse()
  const last = new Map([...state.moves].reverse().map(move => [move.service, move]))
  state.placements = state.placements.map(one => {
    const move = last.get(one.service)
    return { ...one, open: Boolean(move?.open), to: move?.to }
  })
}

function show() {
  showStatus(state)
  showParts(parts(), Date.now() / 1000)
  draw(byId('picture'), state)
  showServices(state, { onMove: askWhere })
  showMoves(state, { onAbort: abort })
  showHistory(state)
  showDecisions(state)
  document.title = `${state.moves.filter(move => move.open).length ? '▶ ' : ''}lispfmc ${state.status.name}`
}

function parts() {
  const ours = lostSince === null ? [] : [{ name: 'fmcc', kind: 'controller', up: false, since: lostSince }]
  return [...ours, ...(state.status?.parts ?? [])]
}

function soon() {
  due ??= setTimeout(look, TOGETHER_MS)
}

function link(named, text) {
  byId('link').dataset.state = named
  byId('link').textContent = text
}

function connect() {
  following?.abort()
  following = new AbortController()
  link('connecting', 'connecting')
  follow({
    signal: following.signal,
    token: () => token,
    onOpen() { lostSince = null; link('live', 'live'); soon() },
    onEvent(event) { showEvent(event); soon() },
    onLost(error) {
      lostSince ??= Date.now() / 1000
      link('lost', 'connection lost, trying again')
      showParts(parts(), Date.now() / 1000)
      console.info(error.message)
    },
    onRefused: refused,
  })
}

function refused(status) {
  link('lost', status === 401 ? 'a token is needed' : 'this token may not read')
  if (!byId('token-dialog').open) byId('token-dialog').showModal()
}

function say(text) {
  byId('said').textContent = text
  clearTimeout(say.timer)
  say.timer = setTimeout(() => { byId('said').textContent = '' }, 8000)
}

function askWhere(placement) {
  const dialog = byId('move-dialog')
  byId('move-title').textContent = `Move ${placement.service}`
  const others = state.sites.filter(site => site.kind === 'datacenter' && site.name !== placement.datacenter)
  byId('move-to').replaceChildren(...others.map(site => html('option', { value: site.name }, site.name)))
  dialog.onclose = () => { if (dialog.returnValue === 'move') move(placement.service, byId('move-to').value) }
  dialog.returnValue = ''
  dialog.showModal()
}

async function move(service, to) {
  try {
    await post('migrations', { service, to })
    say(`${service} moves to ${to}`)
  } catch (error) { trouble(error) }
}

async function abort(one) {
  try {
    await post(`migrations/${one.id}/abort`, {})
    say(`the move of ${one.service} is being given up`)
  } catch (error) { trouble(error) }
}

function trouble(error) {
  if (error.status === 401 || error.status === 403) byId('token-dialog').showModal()
  say(error.message)
}

byId('token-open').onclick = () => byId('token-dialog').showModal()
byId('token-dialog').onclose = () => {
  if (byId('token-dialog').returnValue !== 'use') return
  token = byId('token-value').value.trim()
  sessionStorage.setItem('token', token)
  byId('token-value').value = ''
  connect()
}
// Ages are told without asking anybody.
setInterval(() => showParts(parts(), Date.now() / 1000), 1000)
connect()
