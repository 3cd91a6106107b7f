import { readFileSync, rmSync } from 'node:fs'

/**
 * A named place where a test may kill the process: `IMPRINT_FAILPOINT=name` or `name:3` (at the third passing) ends it by
 * SIGKILL, as a power cut would. With `IMPRINT_FAILPOINT=@FILE` none is armed yet: at SIGUSR2 the name is read from FILE, which
 * is then removed, so that a test can bring a service to the very step that it shall not survive. Without that variable a
 * failpoint costs one comparison. The durability tests read the list of names from here, so that every one of them is tried.
 */
export const failpoints = [
  'blob:written',
  'blob:synced',
  'blob:renamed',
  'blob:published',
  'blob:deleted',
  'pack:put',
  'pack:indexed',
  'chunks:claimed',
  'manifest:pages-put',
  'manifest:committed',
  'collector:marked',
  'collector:swept',
  'collector:repacked',
  'collector:pack-deleted',
  'catalog:committed',
  'catalog:durable',
  'journal:put',
  'journal:compacted',
  'catalog:migrating',
  'catalog:migrated',
  'upload:saving',
  'upload:ingested',
  'upload:active',
  'import:started',
  'import:ingested',
  'import:active',
  'delete:recorded',
  'delete:dropped',
  'stage:ingested',
  'session:chunk-put',
  'session:committed',
  'lease:made',
  'lease:ended',
  'scratch:made',
  'scratch:bytes-synced',
  'scratch:layer-made',
  'scratch:sealed',
  'snapshot:begun',
  'snapshot:part-ingested',
  'snapshot:part-recorded',
  'snapshot:saving',
  'snapshot:ingested',
  'snapshot:active',
  'snapshot:deleted',
  'machine:frozen',
  'machine:still',
  'machine:sealed-still',
  'machine:on-base',
  'machine:base-recorded',
  'machine:layers-unused',
  'machine:streaming',
  'machine:streamed',
  'machine:disk-recorded',
  'machine:disk-plugged',
  'machine:disk-going',
  'machine:disk-unplugged',
  'volume:recorded',
  'volume:sealed',
  'volume:made',
  'volume:extending',
  'volume:extended',
  'volume:deleting',
  'volume:released',
  'volume:snapshot-recorded',
  'volume:sealed-together',
  'volume:recorded-together',
  'volume:ingested',
  'volume:kept',
  'volume:stored',
  'volume:snapshot-deleting',
  'volume:snapshot-released',
  'volume:uploading',
  'volume:uploaded',
  'volume:reserved',
  'volume:cut-off',
  'instance:recorded',
  'instance:lent',
  'instance:leased',
  'instance:launched',
  'instance:active',
  'instance:asked',
  'instance:acted',
  'instance:deleting',
  'instance:removed',
  'instance:released',
  'instance:deleted',
  'instance:volume-reserved',
  'instance:volume-noted',
  'instance:volume-plugged',
  'instance:volume-detaching',
  'instance:volume-unplugged',
  'deploy:begun',
  'deploy:window-written',
  'deploy:synced',
  'deploy:verified',
  'deploy:head-written',
  'memory:begun',
  'memory:still',
  'memory:sealed',
  'memory:sent',
  'memory:filled',
  'migration:prepared',
  'migration:awaited',
  'migration:mirrored',
  'migration:still',
  'migration:sent',
  'migration:given',
  'migration:answered',
  'migration:removed',
  'migration:receiving',
  'migration:waiting',
  'migration:filled',
  'migration:committed',
  'migration:running',
  'instance:snapshot-asked',
  'instance:snapshot-begun',
  'instance:volume-snapshots-noted',
  'instance:sealed',
  'instance:sealing-noted',
  'instance:saved',
  'instance:move-lent',
  'instance:rebased',
  'instance:clone-recorded',
  'instance:clone-lent',
  'instance:clone-volumes-noted',
  'instance:clone-volumes-made',
  'instance:rebuild-asked',
  'instance:rebuild-lent',
  'instance:rebuild-removed',
  'instance:rebuild-cleared',
  'instance:rebuild-launched',
  'instance:hydrate-asked',
  'instance:hydrated',
] as const
export type Failpoint = (typeof failpoints)[number]

const setting = process.env.IMPRINT_FAILPOINT ?? ''
let [wanted, left] = parsed(setting.startsWith('@') ? '' : setting)
if (setting.startsWith('@')) {
  process.on('SIGUSR2', () => {
    const [name, passings] = parsed(readFileSync(setting.slice(1), 'utf8'))
    wanted = name
    left = passings
    rmSync(setting.slice(1))
  })
}

function parsed(text: string): [string, number] {
  const [name = '', nth = '1'] = text.split(/:(?=\d+$)/)
  return [name, Number(nth)]
}

export function failpoint(name: Failpoint): void {
  if (wanted !== name) return
  left -= 1
  if (left <= 0) process.kill(process.pid, 'SIGKILL')
}
