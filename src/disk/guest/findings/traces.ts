import { formatBytes } from '../../../base/units.ts'
import type { NewCheck } from './look.ts'
import type { RuleId } from './rules.ts'

/** By its name, wherever it is; what typed it says which. */
const histories: Readonly<Record<string, string>> = {
  '.bash_history': 'bash',
  '.zsh_history': 'zsh',
  '.zhistory': 'zsh',
  '.histfile': 'zsh',
  '.sh_history': 'sh',
  '.ash_history': 'ash',
  '.ksh_history': 'ksh',
  '.history': 'csh',
  fish_history: 'fish',
  '.python_history': 'Python',
  '.node_repl_history': 'Node',
  '.irb_history': 'irb',
  '.php_history': 'PHP',
  '.lesshst': 'less',
  '.viminfo': 'vim',
  '.mysql_history': 'MySQL',
  '.mariadb_history': 'MariaDB',
  '.psql_history': 'PostgreSQL',
  '.sqlite_history': 'SQLite',
  '.rediscli_history': 'Redis',
  '.dbshell': 'MongoDB',
  '.wget-hsts': 'wget',
  'consolehost_history.txt': 'PowerShell',
}
const loginRecords =
  /^\/var\/(?:log\/(?:wtmp|btmp|lastlog|faillog|tallylog)(?:[.-][^/]*)?|lib\/(?:wtmpdb\/wtmp\.db|lastlog\/lastlog2\.db))$/
const journal = /^\/var\/log\/journal\/[^/]+\/[^/]+\.journal/

interface Heap {
  readonly rule: RuleId
  readonly at: RegExp
  /** The folder that is named for all of them. */
  readonly below: string
  readonly called: string
}
/** What there is much of is one finding with its number and size. The first that fits counts. */
const heaps: readonly Heap[] = [
  { rule: 'journal', at: journal, below: '/var/log/journal', called: 'files of the journal' },
  { rule: 'logs', at: /^\/var\/log\/|^\/var\/lib\/(?:dpkg|apt)\/[^/]+\.log$/, below: '/var/log', called: 'logs' },
  { rule: 'temporary-files', at: /^\/(?:var\/)?tmp\//, below: '/tmp and /var/tmp', called: 'files' },
  {
    rule: 'package-cache',
    at: /^\/var\/(?:cache\/(?:apt|dnf|yum|zypp|pacman|apk|libdnf5|PackageKit)|lib\/apt\/lists)\//,
    below: '/var/cache and /var/lib/apt/lists',
    called: 'files that can be fetched again',
  },
  {
    rule: 'core-dump',
    at: /^\/var\/(?:lib\/systemd\/coredump|crash|spool\/abrt)\//,
    below: '/var/lib/systemd/coredump',
    called: 'dumps',
  },
  {
    rule: 'mail',
    at: /^\/var\/(?:spool\/)?mail\/|^\/root\/Maildir\/|^\/home\/[^/]+\/(?:Maildir\/|mbox$)/,
    below: '/var/mail',
    called: 'mailboxes',
  },
]

/** What work on the machine left: histories, logs, caches. */
export const traces: NewCheck = (look) => {
  const sums = new Map<Heap, { files: number; bytes: number }>()
  return {
    file({ path, name, bytes }) {
      if (bytes === 0) return
      const shell = histories[name.toLowerCase()]
      if (shell !== undefined && Object.hasOwn(histories, name.toLowerCase()))
        look.add('history', path, `of ${shell}, ${formatBytes(bytes)}`)
      if (/\/\.ssh\/known_hosts(?:2|\.old)?$/.test(path)) look.add('known-hosts', path, formatBytes(bytes))
      if (loginRecords.test(path)) return look.add('login-records', path, formatBytes(bytes))
      const heap = heaps.find(({ at }) => at.test(path))
      if (!heap || /\/(?:lock|partial|\.placeholder|CACHEDIR\.TAG)$/.test(path)) return
      const sum = sums.get(heap) ?? { files: 0, bytes: 0 }
      sums.set(heap, { files: sum.files + 1, bytes: sum.bytes + bytes })
    },
    end() {
      for (const [{ rule, below, called }, { files, bytes }] of sums)
        look.add(rule, below, `${files} ${called}, ${formatBytes(bytes)}`)
    },
  }
}
