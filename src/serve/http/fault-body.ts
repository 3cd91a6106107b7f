/** The words for a status that Nova and Cinder share: `nova/api/openstack/wsgi.py`, `Fault._fault_names`. */
const faultNames: Readonly<Record<number, string>> = {
  400: 'badRequest',
  401: 'unauthorized',
  403: 'forbidden',
  404: 'itemNotFound',
  405: 'badMethod',
  409: 'conflictingRequest',
  413: 'overLimit',
  415: 'badMediaType',
  429: 'overLimit',
  501: 'notImplemented',
  503: 'serviceUnavailable',
}

export const faultBody = (status: number, message: string): string =>
  JSON.stringify({ [faultNames[status] ?? 'computeFault']: { code: status, message } })
