import { join } from 'node:path'
import { command, must } from './command.ts'
import { freePort, type Peer, startDaemon } from './daemon.ts'

export interface MariadbPeer extends Peer {
  /** Makes an empty database; returns SQLAlchemy's name of it. */
  database(name: string): Promise<string>
  /** Runs SQL in a database; rows are lines, columns tabs. */
  sql(database: string, text: string): Promise<string>
}

/** Debian's MariaDB on a free port, its data in `folder`. */
export async function startMariadb(folder: string): Promise<MariadbPeer> {
  const data = join(folder, 'data')
  const socket = join(folder, 'mariadb.sock')
  const port = await freePort()
  await must([
    'mariadb-install-db',
    '--no-defaults',
    '--user=root',
    `--datadir=${data}`,
    '--auth-root-authentication-method=normal',
  ])
  const client = ['mariadb', '--no-defaults', '-uroot', '-S', socket] as const
  const daemon = await startDaemon({
    name: 'mariadb',
    folder,
    command: [
      'mariadbd',
      '--no-defaults',
      '--user=root',
      `--datadir=${data}`,
      `--socket=${socket}`,
      '--bind-address=127.0.0.1',
      `--port=${port}`,
      '--skip-name-resolve',
      '--innodb-buffer-pool-size=1G',
      '--max-connections=1000',
      '--character-set-server=utf8mb3',
      '--collation-server=utf8mb3_general_ci',
    ],
    ready: async () => (await command([...client, '-e', 'select 1'])).code === 0,
  })
  const sql = (database: string, text: string) => must([...client, '-N', ...(database ? [database] : [])], { input: text })
  const database = async (name: string) => {
    const user = "'peer'@'127.0.0.1'"
    await sql(
      '',
      `create database ${name}; create user if not exists ${user} identified by 'peer'; grant all on ${name}.* to ${user};`,
    )
    return `mysql+pymysql://peer:peer@127.0.0.1:${port}/${name}?charset=utf8`
  }
  return { name: 'mariadb', database, sql, stop: daemon.stop }
}
