import { type DiscFile, isoDisc } from './iso9660.ts'

/** The files of cloud-init's NoCloud data source. */
export interface SeedFiles {
  readonly metaData: string
  /** Any bytes: a script, a `#cloud-config`, MIME parts, or one of these gzipped. */
  readonly userData: Uint8Array
  readonly networkConfig: string | null
  readonly vendorData: string | null
}

/** By this label cloud-init finds it. Source: cloud-init, "NoCloud", "Source 2: drive with labeled filesystem". */
const LABEL = 'cidata'

/** The disc that a guest finds its configuration on. The same files give the same bytes. */
export function seedDisc({ metaData, userData, networkConfig, vendorData }: SeedFiles): Uint8Array {
  const file = (name: string, shortName: string, content: string | Uint8Array): DiscFile => ({
    name,
    shortName,
    bytes: Buffer.from(content),
  })
  return isoDisc(LABEL, [
    file('meta-data', 'METADATA', metaData),
    ...(networkConfig === null ? [] : [file('network-config', 'NETCONF', networkConfig)]),
    file('user-data', 'USERDATA', userData),
    ...(vendorData === null ? [] : [file('vendor-data', 'VENDDATA', vendorData)]),
  ])
}
