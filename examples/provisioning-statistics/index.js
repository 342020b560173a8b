// The functions that programs of this environment may call. They run in a host process, which can
// reach the backends of environment.toml and nothing else.
const axios = require('axios');

let http;

// Called once for each agent before its first program.
async function Initialize(agentId, backends) {
  http = axios.create({ baseURL: backends.statistics, headers: { 'X-Agent-Id': agentId }, timeout: 5000 });
}

// Called when the agent's processes retire.
async function Deinitialize() {
  http = undefined;
}

// @endowment
// The products that are provisioned: [{ name }].
async function GetProducts(params = {}) {
  const { data } = await http.get('/products');
  return data;
}

// @endowment
// The provisionings of one product on one day: { ok, failed }. params: { product, day }
async function GetProvisionings(params = {}) {
  const { data } = await http.get('/provisionings', { params });
  return data;
}
