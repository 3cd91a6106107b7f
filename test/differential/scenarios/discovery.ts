import { get, type Scenario, scenario, send } from '../scenario.ts'

const schemas = ['image', 'images', 'member', 'members', 'task', 'tasks']
const metadefSchemas = ['namespace', 'resource_type', 'property', 'object', 'tag'].flatMap((name) => [
  `metadefs/${name}`,
  name === 'property' ? 'metadefs/properties' : `metadefs/${name}s`,
])

/** Path → a method that it does not have. */
const notAllowed: readonly (readonly [string, string])[] = [
  ['DELETE', '/v2/images'],
  ['PUT', '/v2/images'],
  ['PATCH', '/v2/images'],
  ['POST', '/v2/images/11111111-2222-4333-8444-555555555555'],
  ['PUT', '/v2/images/11111111-2222-4333-8444-555555555555'],
  ['POST', '/v2/images/11111111-2222-4333-8444-555555555555/file'],
  ['DELETE', '/v2/images/11111111-2222-4333-8444-555555555555/file'],
  ['GET', '/v2/images/11111111-2222-4333-8444-555555555555/stage'],
  ['GET', '/v2/images/11111111-2222-4333-8444-555555555555/import'],
  ['GET', '/v2/images/11111111-2222-4333-8444-555555555555/actions/deactivate'],
  ['GET', '/v2/images/11111111-2222-4333-8444-555555555555/tags/x'],
  ['PUT', '/v2/images/11111111-2222-4333-8444-555555555555/members'],
  ['POST', '/v2/images/11111111-2222-4333-8444-555555555555/members/x'],
  ['PUT', '/v2/tasks'],
  ['PUT', '/v2/tasks/11111111-2222-4333-8444-555555555555'],
  ['POST', '/v2/info/import'],
  ['POST', '/v2/info/stores'],
  ['DELETE', '/v2/info/usage'],
  ['POST', '/v2/schemas/image'],
  ['DELETE', '/v2/metadefs/namespaces'],
  ['POST', '/v2/metadefs/resource_types'],
  ['POST', '/v2/metadefs/namespaces/x'],
  ['PATCH', '/v2/metadefs/namespaces/x/properties'],
  ['PATCH', '/v2/metadefs/namespaces/x/tags/y'],
]

const unknownPaths = [
  '/v2',
  '/v2/',
  '/v1/images',
  '/v3/images',
  '/v2/nothing',
  '/v2/images/x/y/z',
  '/v2/schemas/nothing',
  '/v2/metadefs',
  '/v2/stores',
  '/v2/cache',
]

export const discovery: readonly Scenario[] = [
  scenario('versions', get('/', 'nobody'), get('/versions', 'nobody'), get('/versions'), send('POST', '/versions', 'nobody')),
  scenario('schemas of images, members, tasks', ...schemas.map((name) => get(`/v2/schemas/${name}`))),
  scenario('schemas of metadata definitions', ...metadefSchemas.map((name) => get(`/v2/schemas/${name}`))),
  scenario('methods that a path does not have', ...notAllowed.map(([method, path]) => send(method, path, 'admin'))),
  scenario('paths that there are none of', ...unknownPaths.map((path) => get(path))),
  scenario(
    'who asks',
    get('/v2/images', 'nobody'),
    get('/v2/images', 'nobody', { 'x-auth-token': 'not-a-token' }),
    get('/v2/schemas/image', 'nobody'),
    get('/v2/images', 'reader'),
    send('POST', '/v2/images', 'nobody', {}),
  ),
  scenario(
    'what form an error is wanted in',
    ...['application/json', 'text/html', 'text/plain', '*/*', 'application/xml', 'application/json;q=0.1, text/html'].map(
      (accept) => get('/v2/images/11111111-2222-4333-8444-555555555555', 'member', { accept }),
    ),
  ),
  scenario(
    'information',
    get('/v2/info/import'),
    get('/v2/info/stores'),
    get('/v2/info/stores/detail'),
    get('/v2/info/stores/detail', 'admin'),
    get('/v2/info/usage'),
    get('/v2/info/nothing'),
  ),
]
