/** Other words for the same processor, as images have them. */
const otherNames: Readonly<Record<string, string>> = { amd64: 'x86_64', x64: 'x86_64', arm64: 'aarch64' }

/** In the words of Glance's `hw_architecture`, which are the kernel's. */
export const architectureNamed = (name: string): string => (Object.hasOwn(otherNames, name) ? otherNames[name]! : name)
