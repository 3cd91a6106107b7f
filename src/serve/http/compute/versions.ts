import { computeMicroversions } from './microversion.ts'
import { PREFIX } from './route.ts'

/** What clients choose the API and its level by. @param baseUrl of the service, without a slash at the end */
export const computeVersion = (baseUrl: string) => ({
  id: 'v2.1',
  status: 'CURRENT',
  version: `2.${computeMicroversions.most}`,
  min_version: `2.${computeMicroversions.least}`,
  updated: '2013-07-23T11:33:21Z',
  links: [{ rel: 'self', href: `${baseUrl}${PREFIX}/v2.1/` }],
})

export const computeVersions = (baseUrl: string) => ({ versions: [computeVersion(baseUrl)] })

export const computeVersionDetail = (baseUrl: string) => ({
  version: {
    ...computeVersion(baseUrl),
    'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.compute+json;version=2.1' }],
  },
})
