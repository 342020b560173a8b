// The floor: a SES Compartment in the server's own process. Nothing holds a program that breaks SES, or loops.
import { createRequire } from 'node:module';
import { rates, serve } from './serve.js';

createRequire(import.meta.url)('ses');
lockdown();
const GetRates = harden(async () => structuredClone(rates));
serve(async (code) => new Compartment({ globals: { GetRates }, __options__: true }).evaluate(`${code}; main()`));
