/** `imprint …`. The service is loaded by the one command that runs it: the others start in a tenth of the time. */
import { runCli } from './cli/cli.ts'

process.exitCode = await runCli(process.argv.slice(2), {
  serve: async (...started) => (await import('./wiring.ts')).serve(...started),
  serveAgent: async (...started) => (await import('./wiring-agent.ts')).serveAgent(...started),
})
