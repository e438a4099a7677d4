import { expect } from 'chai';
import fc from 'fast-check';
import { often } from '../../tests/long.ts';
import { brokerAddress } from './broker-address.ts';
import { ConfigFault, platformSettings, readSettings } from './config.ts';

const { natsUrl } = platformSettings;

describe('the address of the broker', () => {
  it('is one server or several, with a user, a token or nothing', () => {
    expect(brokerAddress('nats://a')).to.deep.equal({ servers: ['a:4222'] });
    expect(brokerAddress('a:4223, nats://[::1]:4224/')).to.deep.equal({ servers: ['a:4223', '[::1]:4224'] });
    expect(brokerAddress('nats://ann:s3@a,nats://ann:s3@b:1,c')).to.deep.equal({
      servers: ['a:4222', 'b:1', 'c:4222'],
      user: 'ann',
      pass: 's3',
    });
    expect(brokerAddress('tls://t0ken@a')).to.deep.equal({ servers: ['a:4222'], token: 't0ken', tls: {} });
  });

  it('holds any password', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'binary' }), (pass) => {
        const found = brokerAddress(`nats://ann:${encodeURIComponent(pass)}@a:1,nats://b:2`);
        expect(found).to.deep.equal({ servers: ['a:1', 'b:2'], user: 'ann', pass });
      }),
      often('passwords of the broker'),
    );
  });

  it('that makes no sense is a fault which does not repeat it', () => {
    for (const wrong of [
      'nats://ann:s3cret@a:99999',
      'nats://ann:s3cret@a,nats://ann:s3cret2@b',
      'http://ann:s3cret@a',
      'nats://ann:s3cret/x@a',
      's3cret://',
      ',',
    ]) {
      const read = () => readSettings({ natsUrl }, { MILLRACE_NATS_URL: wrong });
      expect(read, wrong)
        .to.throw(ConfigFault, /MILLRACE_NATS_URL: must /)
        .with.property('message')
        .that.does.not.include('s3cret');
    }
  });
});
