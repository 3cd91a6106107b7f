/** Where Imprint answers otherwise than Glance on purpose. Each entry must still be true: one that matches nothing is a failure. */
export interface KnownDifference {
  /** Of the request: `as METHOD path body headers`. */
  readonly request: RegExp
  /** `status`, `header <name>`, `body.<path>`. */
  readonly where: RegExp
  readonly because: string
}

const any = () => / /

export const knownDifferences: readonly KnownDifference[] = [
  { request: any(), where: /^header x-imprint-error$/, because: 'our own error code, for programs' },
  {
    request: any(),
    where: /^header x-openstack-request-id$/,
    because: 'Glance gives none before it knows who asks; we always do',
  },
  {
    request: any(),
    where: /^header openstack-image-store-ids$/,
    because: 'Glance names its staging and task folders among the stores; they are none that a client can choose',
  },
  { request: /GET \/v2\/schemas\//, where: /\.description$/, because: 'what a property means is said in our own words' },
  { request: /POST \/versions/, where: /^status$/, because: 'Glance answers any method there; we only GET and HEAD' },
]
