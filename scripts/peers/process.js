// A Node process with SES for each program, held by nothing but its user.
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { rates, serve } from './serve.js';

if (process.argv[2] === 'child') {
  createRequire(import.meta.url)('ses');
  lockdown();
  // The server may have been stopped meanwhile.
  process.stdout.on('error', () => {});
  const GetRates = harden(async () => structuredClone(rates));
  const compartment = new Compartment({ globals: { GetRates }, __options__: true });
  process.stdout.write(JSON.stringify(await compartment.evaluate(`${process.argv[3]}; main()`)));
} else {
  const file = fileURLToPath(import.meta.url);
  serve(
    (code) =>
      new Promise((resolve, reject) => {
        const child = spawn(process.execPath, [file, 'child', code], { stdio: ['ignore', 'pipe', 'inherit'] });
        const chunks = [];
        child.stdout.on('data', (chunk) => chunks.push(chunk));
        child.on('error', reject);
        child.on('close', () => {
          const text = Buffer.concat(chunks).toString();
          return text ? resolve(JSON.parse(text)) : reject(new Error('no result'));
        });
      }),
  );
}
