import { STATUS_CODES } from 'node:http'
import type { ServiceError } from '../../../base/errors.ts'
import type { RenderedError } from '../api.ts'

/** Glance's words for a status, where they are not Node's. */
const titles: Readonly<Record<number, string>> = {
  413: 'Request Entity Too Large',
  416: 'Request Range Not Satisfiable',
  499: 'Client Closed Request',
}

/**
 * An error in the form that clients of Glance parse: a page, a JSON object or plain text, as they ask for.
 * @param accept the `Accept` header
 */
export function renderGlanceError(error: ServiceError, status: number, accept: string | undefined): RenderedError {
  const title = titles[status] ?? STATUS_CODES[status] ?? 'Error'
  const heading = `${status} ${title}`
  const form = preferred(accept)
  if (form === 'application/json') {
    return { contentType: form, body: JSON.stringify({ message: error.message, code: heading, title }) }
  }
  if (form === 'text/html') {
    const body = `<html>\n <head>\n  <title>${heading}</title>\n </head>\n <body>\n  <h1>${heading}</h1>\n  ${escaped(error.message)}<br /><br />\n\n\n\n </body>\n</html>`
    return { contentType: 'text/html; charset=UTF-8', body }
  }
  return { contentType: 'text/plain; charset=UTF-8', body: `${heading}\n\n${error.message}\n\n   ` }
}

const MAX_OFFERS = 32 // of an Accept header that are looked at

/** The one of the two forms that the client likes better; a page where it likes both alike. RFC 9110, section 12.5.1. */
function preferred(accept = ''): 'text/html' | 'application/json' | undefined {
  const offers = accept.split(',', MAX_OFFERS).map((offer) => {
    const [range = '', ...parameters] = offer.split(';').map((part) => part.trim().toLowerCase())
    const quality = parameters.find((parameter) => parameter.startsWith('q='))
    return { range, quality: quality === undefined ? 1 : Number(quality.slice(2)) }
  })
  const qualityOf = (type: 'text/html' | 'application/json'): number => {
    for (const range of [type, `${type.split('/')[0]}/*`, '*/*']) {
      const offer = offers.find((candidate) => candidate.range === range)
      if (offer) return Number.isFinite(offer.quality) ? offer.quality : 0
    }
    return 0
  }
  const [html, json] = [qualityOf('text/html'), qualityOf('application/json')]
  if (html <= 0 && json <= 0) return undefined
  return html >= json ? 'text/html' : 'application/json'
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#x27;' }
const escaped = (text: string): string => text.replace(/[&<>"']/g, (character) => entities[character] ?? character)
