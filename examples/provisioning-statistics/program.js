// A program as a model writes it: which product fails most often?
async function main() {
  const products = await GetProducts();
  const rates = await Promise.all(
    products.map(async ({ name }) => {
      const { ok, failed } = await GetProvisionings({ product: name, day: '2026-11-20' });
      return { product: name, failureRate: failed / (ok + failed) };
    }),
  );
  rates.sort((a, b) => b.failureRate - a.failureRate);
  console.log(`${rates.length} products compared`);
  return rates;
}
