import { expect } from 'chai';
import { openClock } from './clock.ts';

describe('the clock of the database, as a process knows it', () => {
  let elapsed = 0;
  const at = (ms: number): number | undefined => {
    elapsed = ms;
    return clock.now()?.getTime();
  };
  const hear = (ms: number, time: number): void => {
    elapsed = ms;
    clock.hear(new Date(time));
  };
  let clock = openClock(() => elapsed);
  beforeEach(() => {
    elapsed = 0;
    clock = openClock(() => elapsed);
  });

  it('is unknown until it was heard, and a minute after that', () => {
    expect(at(5)).to.equal(undefined);
    hear(10, 1_000_000);
    expect(at(60_010)).to.equal(1_060_000);
    expect(at(60_011)).to.equal(undefined);
  });

  it('goes by the answer that was under way for the shortest time, so it is never ahead', () => {
    hear(100, 1_000_040); // under way for 60 ms
    hear(200, 1_000_199); // for 1 ms
    hear(300, 1_000_250); // for 50 ms
    expect(at(400)).to.equal(1_000_399);
  });

  it('is due at first, and a second after it was heard', () => {
    expect(clock.isDue()).to.equal(true);
    hear(100, 1_000_000);
    elapsed = 1100;
    expect(clock.isDue()).to.equal(false);
    elapsed = 1101;
    expect(clock.isDue()).to.equal(true);
  });

  it('follows one that was set back', () => {
    hear(100, 1_000_100);
    hear(200, 990_000);
    expect(at(300)).to.equal(990_100);
  });
});
