import { createHash } from 'node:crypto'
import type { OperatingSystem } from '../../system/operating-system.ts'
import type { Package } from '../package.ts'
import { purlOf } from './purl.ts'

export interface BillOfMaterials {
  /** What it is of, for people: the file's name. */
  readonly name: string
  readonly packages: readonly Package[]
  /** Null where it is not known. */
  readonly operatingSystem: Pick<OperatingSystem, 'distro' | 'version' | 'name'> | null
  /** Sentences on what may be missing. */
  readonly notes: readonly string[]
  /** Of this program. */
  readonly toolVersion: string
}

/** Of documents that must have a time: the same packages make the same bytes, and no list says when it was true. */
const CREATED = '1970-01-01T00:00:00Z'

/** CycloneDX 1.6, as an object. The same bill gives the same one. Source: CycloneDX, bom-1.6.schema.json (ECMA-424). */
export function cycloneDx(bill: BillOfMaterials): object {
  const { operatingSystem, toolVersion } = bill
  const purls = bill.packages.map((each) => purlOf(each, operatingSystem))
  const references = distinct(purls)
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    serialNumber: `urn:uuid:${uuidOf(bill, purls)}`,
    version: 1,
    metadata: {
      tools: { components: [{ type: 'application', name: 'imprint', version: toolVersion }] },
      component: operatingSystem
        ? {
            type: 'operating-system',
            'bom-ref': 'operating-system',
            name: operatingSystem.distro,
            version: operatingSystem.version,
            description: operatingSystem.name,
          }
        : { type: 'file', 'bom-ref': 'disk', name: bill.name },
      properties: [
        { name: 'imprint:image', value: bill.name },
        ...bill.notes.map((note) => ({ name: 'imprint:note', value: note })),
      ],
    },
    components: bill.packages.map((each, index) => ({
      type: 'library',
      'bom-ref': references[index],
      name: each.name,
      version: each.version,
      purl: purls[index],
      properties: [{ name: 'imprint:path', value: each.path }],
    })),
    compositions: [{ aggregate: bill.notes.length === 0 ? 'unknown' : 'incomplete' }],
  }
}

/** SPDX 2.3, as an object. The same bill gives the same one. Source: SPDX 2.3, chapters 6, 7 and 11; spdx-schema.json. */
export function spdx(bill: BillOfMaterials): object {
  const { operatingSystem, packages, toolVersion } = bill
  const purls = packages.map((each) => purlOf(each, operatingSystem))
  const root = 'SPDXRef-Disk'
  return {
    spdxVersion: 'SPDX-2.3',
    dataLicense: 'CC0-1.0',
    SPDXID: 'SPDXRef-DOCUMENT',
    name: bill.name,
    documentNamespace: `https://spdx.org/spdxdocs/imprint-${uuidOf(bill, purls)}`,
    creationInfo: { created: CREATED, creators: [`Tool: imprint-${toolVersion}`] },
    ...(bill.notes.length === 0 ? {} : { comment: bill.notes.join('\n') }),
    documentDescribes: [root],
    packages: [
      {
        SPDXID: root,
        name: operatingSystem?.name || bill.name,
        ...(operatingSystem?.version ? { versionInfo: operatingSystem.version } : {}),
        downloadLocation: 'NOASSERTION',
        filesAnalyzed: false,
        primaryPackagePurpose: operatingSystem ? 'OPERATING_SYSTEM' : 'FILE',
      },
      ...packages.map((each, index) => ({
        SPDXID: `SPDXRef-Package-${index + 1}`,
        name: each.name,
        versionInfo: each.version,
        downloadLocation: 'NOASSERTION',
        filesAnalyzed: false,
        sourceInfo: `found in ${each.path}`,
        externalRefs: [{ referenceCategory: 'PACKAGE-MANAGER', referenceType: 'purl', referenceLocator: purls[index] }],
      })),
    ],
    relationships: packages.map((_, index) => ({
      spdxElementId: root,
      relationshipType: 'CONTAINS',
      relatedSpdxElement: `SPDXRef-Package-${index + 1}`,
    })),
  }
}

/** Each once: the second of one name is `name#2`. */
function distinct(names: readonly string[]): readonly string[] {
  const counts = new Map<string, number>()
  return names.map((name) => {
    const count = (counts.get(name) ?? 0) + 1
    counts.set(name, count)
    return count === 1 ? name : `${name}#${count}`
  })
}

/** By what the bill says, in the form of a UUID of version 8. Source: RFC 9562, section 5.8. */
function uuidOf({ name, packages, operatingSystem, notes }: BillOfMaterials, purls: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify([name, operatingSystem, notes]))
  for (const [index, purl] of purls.entries()) hash.update(`\n${JSON.stringify([purl, packages[index]!.path])}`)
  const bytes = hash.digest().subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x80
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  const text = bytes.toString('hex')
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-')
}
