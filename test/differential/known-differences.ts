import { image } from './scenario.ts'

/** Where Imprint answers otherwise than Glance on purpose. Each entry must still be true: one that matches nothing is a failure. */
export interface KnownDifference {
  /** Of the request: `as METHOD path body headers`. */
  readonly request: RegExp
  /** `status`, `header <name>`, `body.<path>`. */
  readonly where: RegExp
  /** What Glance has there, where only that is explained. */
  readonly glance?: RegExp
  readonly because: string
}

const any = () => / /
const of = (name: string) => new RegExp(image(name))

export const knownDifferences: readonly KnownDifference[] = [
  // headers
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
  { request: /GET .*\/file/, where: /^header (etag|accept-ranges)$/, because: 'downloads can be resumed: we say so' },
  {
    request: /GET .*\/file/,
    where: /^header content-range$/,
    glance: /absent/,
    because: 'RFC 9110, 15.5.17: a 416 says how long the file is',
  },
  { request: /(POST|DELETE) .*\/file/, where: /^header allow$/, because: 'HEAD of the bytes is answered, so it is named' },

  { request: /HEAD .*\/file/, where: /^status$/, glance: /^405$/, because: 'HEAD says how long the bytes are and names them' },

  // what Glance does not survive
  { request: any(), where: /^status$/, glance: /^500$/, because: 'Glance fails where we refuse' },

  // discovery
  { request: /POST \/versions/, where: /^status$/, because: 'Glance answers any method there; we only GET and HEAD' },
  {
    request: /GET \/v[123]/,
    where: /^status$/,
    because: 'Glance lists its versions at any unknown path; other paths of ours are other APIs',
  },
  { request: /DELETE \/v2\/info\/usage/, where: /^status$/, because: 'a method that a path does not have is a 405 everywhere' },
  { request: /GET \/v2\/schemas\//, where: /\.description$/, because: 'what a property means is said in our own words' },
  { request: /GET \/v2\/info\/import/, where: /\.description$/, because: 'said in our own words' },
  { request: /GET \/v2\/info\/stores/, where: /^body\.stores\.0\./, because: 'it is another kind of store' },
  { request: /GET \/v2\/info\/usage/, where: /^body\.usage\./, because: 'Glance runs without limits here' },

  // creating and listing
  {
    request: /POST \/v2\/images \{"(os_hash|deleted)/,
    where: /^status$/,
    because: 'read-only, like checksum: Glance drops them or calls them unknown',
  },
  { request: /[?&](\w+)=.*&\1=/, where: /^body\.(first|next)$/, because: 'Glance forgets all but the last of a repeated filter' },

  // properties of ours
  { request: any(), where: /\.imprint_\w+$/, because: 'where the bytes came from and what is odd about them' },
  { request: any(), where: /\.os_glance_import_task$/, because: 'who is importing is our own affair; the tasks say it' },
  {
    request: of('nameless'),
    where: /^status$/,
    because: 'Glance makes a property whose name is empty, which no client can write again',
  },
  {
    request: of('hard'),
    where: /^(status|body)/,
    because: 'Glance takes a number for a project, and mangles tags beyond ASCII or with a slash',
  },

  // bytes
  { request: of('empty'), where: /\.virtual_size$/, because: 'the disk in a file of no bytes has no bytes: that is known' },
  { request: of('liar'), where: /^(status|header|body)/, because: 'what is declared as qcow2 must be one' },
  { request: of('awake'), where: /\.stores$/, because: 'where the bytes are is no secret while they are not handed out' },
  { request: of('staged'), where: /\.message$/, because: 'progress of a task is rounded up' },
  { request: of('refused'), where: /^status$/, glance: /^409$/, because: 'we look at the request before the state of the image' },

  // metadata definitions
  { request: /"namespace":""/, where: /^status$/, because: 'a namespace without a name cannot be asked for' },
]
