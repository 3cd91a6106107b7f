import { instanceCommand } from '../instance-command.ts'

export const unpause = instanceCommand({
  name: 'unpause',
  summary: 'Let paused instances go on',
  example: 'where it stood',
  done: 'unpaused',
  act: (compute, id) => compute.act(id, { unpause: null }),
})
