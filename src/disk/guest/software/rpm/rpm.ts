import { ServiceError } from '../../../../base/errors.ts'
import { KiB, MiB } from '../../../../base/units.ts'
import type { BlockSource } from '../../../block/block-source.ts'
import { paged } from '../../../filters/paged.ts'
import type { FileTree, Found } from '../../filesystems/file-tree.ts'
import { Notes } from '../notes.ts'
import type { Package, PackageList, PackageReader } from '../package.ts'
import { openBerkeley } from './berkeley.ts'
import { type ReadHeaders, refuse } from './blob.ts'
import { isDamage, readHeader } from './header.ts'
import { openNdb } from './ndb.ts'
import { openSqlite } from './sqlite.ts'

/** Where distributions keep it: most; Fedora from 36 and SUSE; systems of OSTree. */
const folders: readonly string[] = ['/var/lib/rpm', '/usr/lib/sysimage/rpm', '/usr/share/rpm']
const MAX_PACKAGES = 200_000 // of the largest distributions
const inPages = paged({ pageBytes: 64 * KiB, maxBytes: 2 * MiB })

interface Store {
  readonly found: Found
  readonly open: (file: BlockSource, tree: FileTree) => Promise<ReadHeaders>
}

/** In the order in which rpm itself looks for them. */
const kinds: readonly { readonly file: string; readonly open: (found: Found) => Store['open'] }[] = [
  {
    file: 'rpmdb.sqlite',
    open: (found) => async (file, tree) => {
      const log = await tree.open(`${found.path}-wal`)
      return openSqlite(file, log && inPages(log))
    },
  },
  { file: 'Packages.db', open: () => async (file) => openNdb(file) },
  { file: 'Packages', open: () => async (file) => openBerkeley(file) },
]

/** Red Hat, Fedora, SUSE and what is made of them, by all three of rpm's databases. Keys are packages as `rpm -qa` has them: gpg-pubkey. */
export const rpm: PackageReader = {
  name: 'rpm',
  async read(tree) {
    const stores = await storesOf(tree)
    let failure: ServiceError | undefined
    for (const [index, store] of stores.entries()) {
      try {
        const { packages, notes } = await readStore(store, tree)
        const others = stores.slice(index + 1).map(({ found }) => `${found.path} is another rpm database and was not read`)
        const before = failure ? [failure.message] : []
        return { packages, notes: [...before, ...notes, ...others] }
      } catch (error) {
        if (!(error instanceof ServiceError)) throw error
        failure ??= new ServiceError(error.code, `${store.found.path}: ${error.message}`, error.details)
      }
    }
    if (failure) throw failure
    return undefined
  },
}

/** Each once, by whatever names it goes: distributions link the folders. */
async function storesOf(tree: FileTree): Promise<Store[]> {
  const stores: Store[] = []
  for (const { file, open } of kinds)
    for (const folder of folders) {
      const found = await tree.find(`${folder}/${file}`)
      if (found?.node.kind === 'file' && stores.every((store) => store.found.path !== found.path))
        stores.push({ found, open: open(found) })
    }
  return stores
}

async function readStore({ found, open }: Store, tree: FileTree): Promise<PackageList> {
  const notes = new Notes()
  const packages: Package[] = []
  const file = inPages(await found.fileSystem.data(found.node))
  const journal = await tree.find(`${found.path}-journal`)
  if (journal && journal.node.bytes > 0)
    notes.add(
      `${journal.path}: the last change of the rpm database was not finished, and what it should be again may be missing here`,
    )
  const readHeaders = await open(file, tree)
  for await (const { what, blob } of readHeaders(notes)) {
    if (packages.length >= MAX_PACKAGES) {
      notes.add(`${found.path} has more than ${MAX_PACKAGES} packages; the rest is left out`)
      break
    }
    try {
      packages.push(await readHeader(blob, found.path))
    } catch (error) {
      if (!isDamage(error)) throw error
      notes.add(`${found.path}, ${what}: ${error.message}`)
    }
  }
  const [fault] = notes.list
  if (packages.length === 0 && fault !== undefined) throw refuse(`has no package that can be read: ${fault}`)
  return { packages, notes: notes.list }
}
