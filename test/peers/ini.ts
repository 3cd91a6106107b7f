type Value = string | number | boolean

/** Settings in the form that OpenStack services and tempest read: `[section]`, `key = value`. */
export function iniText(sections: Readonly<Record<string, Readonly<Record<string, Value>>>>): string {
  const lines = (keys: Readonly<Record<string, Value>>) => Object.entries(keys).map(([key, value]) => `${key} = ${value}\n`)
  const blocks = Object.entries(sections).map(([title, keys]) => `[${title}]\n${lines(keys).join('')}`)
  return blocks.join('\n')
}
