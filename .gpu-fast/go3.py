from bench import *
exec(open(f'{D}/common.py').read())
verify()
reads('c1l1')
big=K(*[(f'c{c}l{l}',8 if c==2 else 16,132) for c in (1,2) for l in (0,1,2,3)],('c1l2',8,132),('c1l2',4,132),('c2l2',4,132),('tall1',8,132),('tall2',8,132),('sq',16,132),('c1l2',16,132,3),('c1l2',16,128),('c1l2',16,124),('c1l2',16,116))
for s in ((8192,8192,3584),(2048,8192,3584),(8192,8192,1024),(8192,8192,8192)):
    for bt in (0,1):
        if left()>20: run(*s,bt,big if bt==0 else big[:10])
mid=K(*[(f'c{c}l{l}',2,132) for c in (1,2) for l in (0,1,2)],('tall1',2,132),('sq',4,132),('c1l1',4,132))
for bt in (0,1): run(512,8192,3584,bt,mid)
small=K(('one64x64s12',1,132,2,True),('one64x64s12',1,132,3,True),('one64x64s8',1,132,3,True),('two64x64',1,132,3,True))
for bt in (0,1): run(16,8192,3584,bt,small)
for bt in (0,1): run(128,8192,3584,bt,K(('coop128x64',1,132,3),('coop128x64l3',1,132,3),('coop128x64l3',1,132)))
# A by columns
run(8192,8192,3584,0,K(('c1l2',16,132),('c2l2',8,132)),at=1)
say(f'total {time.time()-T0:.0f}s')
