import { volumeMicroversions } from './microversion.ts'
import { PREFIX } from './route.ts'

const { least, most } = volumeMicroversions

/** What clients choose the API and its level by. @param baseUrl of the service, without a slash at the end */
const volumeVersion = (baseUrl: string) => ({
  id: 'v3.0',
  status: 'CURRENT',
  version: `3.${most}`,
  min_version: `3.${least}`,
  updated: '2016-02-08T12:20:21Z',
  links: [{ rel: 'self', href: `${baseUrl}${PREFIX}/v3/` }],
  'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.volume+json;version=3' }],
})

export const volumeVersions = (baseUrl: string) => ({ versions: [volumeVersion(baseUrl)] })
