import { instanceCommand } from '../instance-command.ts'

export const rm = instanceCommand({
  name: 'rm',
  summary: 'Delete instances, with all that they wrote',
  description: 'In any state; what was written is gone. The images that they started from stay.',
  example: 'and everything on its disk',
  done: 'deleted',
  act: (compute, id) => compute.remove(id),
})
