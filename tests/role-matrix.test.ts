import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { loadContract } from '#platform/contract.ts';
import { roleMatrix } from '../scripts/role-matrix.ts';

describe('docs/ROLES.md', () => {
  const contract = loadContract('build/image.binpb');

  it('is what the contracts say (else: node scripts/role-matrix.ts > docs/ROLES.md)', () => {
    expect(readFileSync('docs/ROLES.md', 'utf8')).to.equal(roleMatrix(contract));
  });

  it('names every method, and follows a changed policy', () => {
    const said = roleMatrix(contract);
    for (const method of contract.methods.values()) expect(said).to.include(`\`${method.service.split('.').at(-1)}.${method.name}\``);
    const [path, method] = [...contract.methods].find(([, one]) => one.access === 'PERMISSION') ?? [];
    if (!path || !method) throw new Error('no method asks for a permission');
    const opened = { ...contract, methods: new Map([...contract.methods, [path, { ...method, access: 'PUBLIC' as const, scope: '' }]]) };
    expect(roleMatrix(opened)).to.not.equal(said);
  });
});
