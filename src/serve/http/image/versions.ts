import { PREFIX } from './image-services.ts'

/** The versions of the image API that Glance 25 answers for with several stores and without its cache. */
const minors = [15, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]

/** @param baseUrl the address of the service, without a slash at the end: `http://host:9797` */
export const imageVersions = (baseUrl: string) => ({
  versions: minors.map((minor, at) => ({
    id: `v2.${minor}`,
    status: at === 0 ? 'CURRENT' : 'SUPPORTED',
    links: [{ rel: 'self', href: `${baseUrl}${PREFIX}/v2/` }],
  })),
})
