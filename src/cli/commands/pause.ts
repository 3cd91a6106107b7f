import { instanceCommand } from '../instance-command.ts'

export const pause = instanceCommand({
  name: 'pause',
  summary: 'Let the processors of instances stand still; their memory stays',
  example: 'until imprint unpause web',
  done: 'paused',
  act: (compute, id) => compute.act(id, { pause: null }),
})
