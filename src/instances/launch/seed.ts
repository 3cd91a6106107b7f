import type { SeedFiles } from '../hypervisor/hypervisor.ts'
import type { InstanceRecord } from '../records.ts'
import type { Seed } from '../store.ts'

type Told = Pick<InstanceRecord, 'id' | 'hostname' | 'key' | 'network' | 'metadata'>

/**
 * What cloud-init's NoCloud data source reads: https://docs.cloudinit.io, "NoCloud" and "Networking config Version 2". The files
 * are YAML; what stands here is JSON, a part of YAML in which no string can end before its quote.
 *
 * A password goes, hashed, into the vendor data, which cloud-init merges under what the user sent.
 */
export function seedFor({ id, hostname, key, network, metadata }: Told, { userData, passwordHash }: Seed): SeedFiles {
  return {
    metaData: yaml({
      'instance-id': id,
      'local-hostname': hostname,
      ...(key ? { 'public-keys': [key.publicKey] } : {}),
      meta: metadata,
    }),
    userData: Buffer.from(userData ?? '', 'base64'),
    networkConfig: network
      ? yaml({ version: 2, ethernets: { net0: { match: { macaddress: network.mac }, dhcp4: true } } })
      : null,
    vendorData: passwordHash === null ? null : `#cloud-config\n${yaml({ password: passwordHash, chpasswd: { expire: false } })}`,
  }
}

/**
 * JSON in which nothing stands raw that YAML's readers refuse (YAML 1.1, section 5.1, "printable") or take for the end of a line:
 * control characters above ASCII, the separators of lines and paragraphs, the byte order mark and the two non-characters.
 */
const yaml = (value: object): string =>
  `${JSON.stringify(value, null, 1).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )}\n`
