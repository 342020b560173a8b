// @ts-check
/**
 * The messages between the supervisor and a jailed Node process, mirrored from
 * `supervisor/src/protocol`. A message is an object with one key, its name:
 * `{ "call": { "callId": 1, "name": "GetRates", "params": {} } }`.
 *
 * @typedef {{ name: string, message: string, code?: string, line?: number, column?: number, stack?: string, hint?: string }} ErrorDetails
 *
 * @typedef {{ apiCallsMax: number, apiCallsConcurrentMax: number, paramsBytesMax: number, resultBytesMax: number, logEntriesMax: number, logCharsMax: number }} Budgets
 *
 * @typedef {{ line: number, column: number, by: number }} Shift
 *
 * @typedef {{ executionId: string, source: string, entry: 'call' | 'script', linesBefore: number, shifts: Shift[], functions: string[], input: unknown, context: Record<string, unknown>, budgets: Budgets }} Execute
 *
 * @typedef {{ announce: Execute }
 *   | { confirm: { executionId: string } }
 *   | { execute: Execute }
 *   | { return: { executionId: string, callId: number, value: unknown } }
 *   | { throw: { executionId: string, callId: number, error: ErrorDetails } }
 *   | { wake: { executionId: string } }} ToGuest
 *
 * @typedef {{ load: { file: string, functions: string[] } }
 *   | { initialize: { agentId: string, backends: Record<string, string> } }
 *   | { call: { callId: number, name: string, params: unknown } }
 *   | { deinitialize: {} }} ToHost
 *
 * @typedef {{ level: string, text: string, truncated?: boolean }} LogEntry
 *
 * @typedef {{ ready: {} }
 *   | { log: { executionId: string } & LogEntry }
 *   | { call: { executionId: string, callId: number, name: string, params: unknown } }
 *   | { completed: { executionId: string, value: unknown, resultType?: string } }
 *   | { threw: { executionId: string, error: ErrorDetails } }
 *   | { wait: { executionId: string, ms: number } }
 *   | { idle: { executionId: string } }} FromGuest
 *
 * @typedef {{ ready: {} }
 *   | { loaded: {} }
 *   | { initialized: {} }
 *   | { returned: { callId: number, value: unknown } }
 *   | { threw: { callId: number | null, error: ErrorDetails } }
 *   | { deinitialized: {} }
 *   | { log: LogEntry }} FromHost
 */
export {};
