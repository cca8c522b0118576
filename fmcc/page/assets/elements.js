// Elements from names and values. Text is only ever set as text: nothing that a daemon says becomes markup.

export const byId = id => document.getElementById(id)

export function html(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children)
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children)
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.filter(child => child !== null && child !== undefined))
  return element
}

export const ms = value => value === null || value === undefined ? '–' : `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ms`
