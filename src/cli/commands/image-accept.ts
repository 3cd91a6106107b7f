import { membershipCommand } from '../membership.ts'

export const imageAccept = membershipCommand(
  'accept',
  'Accept an image that was shared with your project, so that lists show it',
  'imprint image list --shared pending shows what waits',
)
