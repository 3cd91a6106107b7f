import { instanceCommand } from '../instance-command.ts'

export const stop = instanceCommand({
  name: 'stop',
  summary: 'Shut instances down',
  description: 'By the power button; a guest that does not heed it is switched off after the time that the service allows.',
  example: 'its disk, ports and id stay',
  done: 'stopped',
  act: (compute, id) => compute.act(id, { 'os-stop': null }),
})
