import type { Caller } from '../../base/caller.ts'
import { ServiceError } from '../../base/errors.ts'
import { rankOf } from '../../base/rank.ts'
import type { CatalogReader } from '../../store/catalog/catalog.ts'
import { findExport } from './exports.ts'
import type { LeasedImage } from './lease.ts'

/**
 * The image whose file stands behind a read-only export, for who reads the file by its chunks. The export alone says whether they may: what
 * becomes of the image meanwhile changes nothing.
 * @throws ServiceError `not-found` where the export is over; `denied`; `unsupported` where what is written to the disk is not in the file
 */
export async function imageOfExport(catalog: CatalogReader, caller: Caller, id: string, now: number): Promise<LeasedImage> {
  const { body } = await findExport(catalog, caller, id, now)
  if (rankOf(caller) === 'reader') throw new ServiceError('denied', 'the bytes of an export are read with the role "member"')
  if (body.image === null || body.isWritable) {
    throw new ServiceError(
      'unsupported',
      'this export is writable: its disk is read over NBD only; chunks are given of read-only ones',
    )
  }
  return body.image
}
