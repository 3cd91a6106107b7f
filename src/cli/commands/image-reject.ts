import { membershipCommand } from '../membership.ts'

export const imageReject = membershipCommand(
  'reject',
  'Reject an image that was shared with your project',
  'lists do not show it; its id still works',
)
