// The daemon's server-sent events by fetch: a token can go along, and the position survives a broken connection.

const FIRST_WAIT_MS = 500, LONGEST_WAIT_MS = 5000

export async function follow({ token, onEvent, onOpen, onLost, onRefused, signal }) {
  let after = null, wait = FIRST_WAIT_MS
  while (!signal.aborted) {
    try {
      const headers = { Accept: 'text/event-stream' }
      if (token()) headers.Authorization = `Bearer ${token()}`
      if (after !== null) headers['Last-Event-ID'] = String(after)
      const response = await fetch('v1/events', { headers, signal, cache: 'no-store' })
      if (response.status === 401 || response.status === 403) return onRefused(response.status)
      if (!response.ok) throw new Error(`the event stream answers ${response.status}`)
      if (after === null) after = await position(headers, signal)
      wait = FIRST_WAIT_MS
      onOpen()
      for await (const event of events(response.body)) {
        if (event.id > after) after = event.id
        onEvent(event)
      }
      throw new Error('the controller closed the connection')
    } catch (error) {
      if (signal.aborted) return
      onLost(error)
      await new Promise(done => setTimeout(done, wait))
      wait = Math.min(2 * wait, LONGEST_WAIT_MS)
    }
  }
}

// Where the stream begins, so that a connection that breaks before its first event misses none either.
async function position(headers, signal) {
  const response = await fetch('v1/status', { headers: { ...headers, Accept: 'application/json' }, signal })
  return (await response.json()).last_event
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  let pending = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    pending += value
    const blocks = pending.split('\n\n')
    pending = blocks.pop()
    for (const block of blocks) {
      const data = block.split('\n').filter(line => line.startsWith('data:')).map(line => line.slice(5)).join('\n')
      if (data) yield JSON.parse(data)
    }
  }
}
