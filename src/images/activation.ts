import type { Caller } from '../base/caller.ts'
import { recordAudit } from './audit.ts'
import { findImage } from './find-image.ts'
import type { ImagePorts } from './ports.ts'

/** Nobody but administrators gets the bytes until `reactivate`. @throws ServiceError `not-found`, `denied` */
export const deactivate = (ports: ImagePorts, caller: Caller, id: string): Promise<void> =>
  become(ports, caller, id, 'deactivate', 'deactivated')

/** @throws ServiceError `not-found`, `denied` */
export const reactivate = (ports: ImagePorts, caller: Caller, id: string): Promise<void> =>
  become(ports, caller, id, 'reactivate', 'active')

async function become(
  ports: ImagePorts,
  caller: Caller,
  id: string,
  verb: 'deactivate' | 'reactivate',
  status: 'deactivated' | 'active',
): Promise<void> {
  await ports.catalog.write(async (tx) => {
    const { image } = await findImage(tx, caller, id, verb)
    if (image.status === status) return
    const at = ports.now()
    await tx.images.update(image.id, image.version, { status, updatedAt: at })
    await recordAudit(tx, caller, verb, image, at)
  })
}
