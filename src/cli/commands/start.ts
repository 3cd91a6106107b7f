import { instanceCommand } from '../instance-command.ts'

export const start = instanceCommand({
  name: 'start',
  summary: 'Start instances that are off',
  example: 'on the disk that it has',
  done: 'started',
  act: (compute, id) => compute.act(id, { 'os-start': null }),
})
