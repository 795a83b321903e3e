from bench import *
exec(open(f'{D}/common.py').read())
verify(skip={'coop128x256c2x','coop128x256c1x'},deep_only={'one64x32'})
reads('coop128x256c1')
big=K(*[('coop128x256c2',r,132) for r in (2,4,8)],('coop128x256c1',8,132),('coop128x256c4',2,128),('coop128x256c4',4,128),
  *[(f'coop128x256c2s{x}',8,132) for x in (1,2,3)],('coop128x256c2x',8,132),('coop128x256c1x',8,132),('coop256x128c2',4,132),('coop256x128c1',8,132),
  ('ping128x128c1',16,132),('ping128x128c2',8,132),('ping64x256c2',8,132),('coop128x256c2',8,132,3),('coop128x256c2',8,128),('coop128x256c2',8,124),('coop128x256c2',8,120),('coop128x256c2',8,116))
for s in ((8192,8192,3584),(2048,8192,3584),(8192,8192,1024),(8192,8192,8192)):
    for bt in (0,1):
        if left()>20: run(*s,bt,big if bt==0 else big[:9],rounds=5)
mid=K(('coop128x256c2',2,132),('coop128x256c1',4,132),('coop128x256c2s2',2,132),('coop256x128c2',2,132),('coop128x256c2x',4,132))
for bt in (0,1): run(512,8192,3584,bt,mid)
small=K(('one64x64',1,132),('one64x64',1,132,3),('one64x64',1,132,2,True),('one64x64',1,132,3,True),('two64x64',1,132,3,True),('one64x32',1,264,3,True),('one64x32',1,132,3,True))
run(16,8192,3584,0,[k for k in small if 'x32' not in k.name])
run(16,8192,3584,1,small)
s128=K(('one128x64',1,132),('one128x64',1,132,3),('coop128x64',1,132),('coop128x64',1,132,3))
for bt in (0,1): run(128,8192,3584,bt,s128)
run(64,8192,3584,0,K(('one64x64',1,132,3),('one64x64',1,132,2)))
# clocks under load
import subprocess
m=n=k=8192
A,B,Cc=mk(m,k,0,bf),mk(k,n,0,bf),torch.empty(m,n,device='cuda',dtype=bf)
kk=Kernel(C['coop128x256c2'],8); ar=kk.args(m,n,k,A,B,Cc); L=Lt(m,n,k,A,B,Cc)
for name,f in (('ours',lambda: kk.launch(ar)),('lt',lambda: L.launch(1,A,B,Cc))):
    g=graph([f]*100); t=[]
    for _ in range(8): g.replay()
    q=subprocess.run('nvidia-smi --query-gpu=clocks.sm,power.draw,clocks_event_reasons.active --format=csv,noheader -lms 100 & p=$!; sleep 0.7; kill $p',shell=True,capture_output=True,text=True).stdout
    a=torch.cuda.Event(enable_timing=True); torch.cuda.synchronize(); ts=[timeg(g,100) for _ in range(3)]
    say('clock',name,q.replace('\n',' | '),[f'{x:.0f}' for x in ts])
say(f'total {time.time()-T0:.0f}s')
