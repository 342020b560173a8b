// Each program gets a worker of its own, without a network; the function is called over workerd's RPC.
import { WorkerEntrypoint } from 'cloudflare:workers';

export class Backend extends WorkerEntrypoint {
  async GetRates() {
    return [{ product: 'MySQL', ok: 12, failed: 3 }];
  }
}

const wrapped = (code) => `
export default {
  async fetch(request, { BACKEND }) {
    const GetRates = (params) => BACKEND.GetRates(params);
    ${code}
    return Response.json({ result: await main() });
  },
};`;

let programs = 0;

export default {
  async fetch(request, env, context) {
    const { code } = await request.json();
    programs += 1;
    const worker = env.PROGRAMS.get(`program-${programs}`, async () => ({
      compatibilityDate: '2026-01-01',
      mainModule: 'program.js',
      modules: { 'program.js': wrapped(code) },
      env: { BACKEND: context.exports.Backend({ props: {} }) },
      globalOutbound: null,
    }));
    return worker.getEntrypoint().fetch('http://program/');
  },
};
