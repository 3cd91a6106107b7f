import type { Caller } from '../base/caller.ts'
import { ServiceError } from '../base/errors.ts'
import { findImage } from './find-image.ts'
import { STORE_ID } from './import/import-image.ts'
import type { ImagePorts } from './ports.ts'

/**
 * `DELETE /v2/stores/{store}/{image}`: would take the image's bytes out of one of several stores. There is one store, so what
 * is left to say is why not.
 * @throws ServiceError `conflict`, `not-found`, `denied`
 */
export async function deleteFromStore({ catalog }: ImagePorts, caller: Caller, store: string, id: string): Promise<never> {
  if (store !== STORE_ID) {
    throw new ServiceError('conflict', `there is no store ${JSON.stringify(store.slice(0, 80))} here; there is "${STORE_ID}"`)
  }
  const { image } = await findImage(catalog, caller, id, 'delete-from-store')
  throw new ServiceError(
    'denied',
    `"${STORE_ID}" is the only store with the bytes of image ${image.id}: delete the image instead`,
  )
}
