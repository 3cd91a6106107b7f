import { basename } from 'node:path'
import { ServiceError } from '../../base/errors.ts'
import { formatBytes } from '../../base/units.ts'
import type { Output } from '../output.ts'
import { safeText } from '../safe-text.ts'
import { askLine } from '../secret-prompt.ts'
import type { DeployTarget } from './deploy-image.ts'

/**
 * Shows what will be lost, and has its name typed.
 * @throws ServiceError `cancelled` where something else was typed; `invalid-request` where there is no terminal
 */
export async function confirmLoss(out: Output, target: DeployTarget, imageName: string): Promise<void> {
  if (target.isBlank) return
  const { path, device, bytes, model, serial, holds } = target
  const name = safeText(device ?? basename(path))
  const what = [model, serial && `serial ${serial}`, formatBytes(bytes)].filter(Boolean).join(', ')
  out.note(`${safeText(path)}: ${safeText(what)}`)
  out.note(holds.length > 0 ? `On it now: ${holds.join(', ')}.` : 'Nothing is recognised on it.')
  const typed = await askLine(`Its content will be replaced by ${safeText(imageName)}. Type ${name} to go on: `)
  if (typed !== name) throw new ServiceError('cancelled', 'nothing was written')
}
