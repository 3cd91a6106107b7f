/** The part of a pino logger that the server uses. */
export interface NbdLog {
  info(facts: object, message: string): void
  warn(facts: object, message: string): void
  error(facts: object, message: string): void
}
