import random
C={c['name']:c for c in json.load(open(f'{D}/configs.json'))}
bf=torch.bfloat16
say(torch.cuda.get_device_name())
good=[]
def verify(skip=(),deep_only=()):
    for name,c in C.items():
        if name in skip: good.append(name); continue
        dt=torch.float16 if c['DTYPE']=='f16' else bf
        try:
            kern=Kernel(c,4); ok=n=0
            for at in (0,1):
                for bt in (1,) if name in deep_only else (0,1):
                    for m,n_,k in ((512,1024,512),(200,328,72),(1,8,8),(1000,1157,1093),(129,2056,64)):
                        ok+=check(kern,m,n_,k,at,bt,dt,bias=(m==200)); n+=1
            say(f'{name} correct {ok}/{n}')
            if ok==n: good.append(name)
        except Exception as e:
            say(name,'FAILED',e)
            if 'trap' in str(e) or '719' in str(e) or 'illegal' in str(e): sys.exit(1)
    say(f'checked {time.time()-T0:.0f}s')
def reads(name):
    # read bandwidth
    f=func(name,'iris_read'); out=torch.zeros(4,dtype=torch.int32,device='cuda')
    big=torch.randint(0,1<<30,(1<<28,),dtype=torch.int32,device='cuda')
    def rd(ptr,nbytes,blocks=264):
        v=(ctypes.c_uint64*3)(ptr,nbytes//16,out.data_ptr()); p=(ctypes.c_void_p*3)(*[ctypes.addressof(v)+8*i for i in range(3)])
        ck(cu.cuLaunchKernel(f,blocks,1,1,1024,1,1,0,ctypes.c_void_p(torch.cuda.current_stream().cuda_stream),p,None),'read')
    for nb in (58720256,1<<30):
        nset=max(1,(1<<30)//nb); g=graph([lambda i=i: rd(big.data_ptr()+i*nb,nb) for i in range(nset)])
        t=min(timeg(g,nset) for _ in range(10)); say(f'read {nb}: {t:.1f} us {nb/t/1e6:.2f} TB/s')
    del big
RES={}
def run(m,n,k,bt,cands,rounds=9,at=0):
    byte=(m*k+k*n)*2; sets=max(2,min(12,int(200e6/byte)+1))
    As=[mk(m,k,at,bf) for _ in range(sets)]; Bs=[mk(k,n,bt,bf) for _ in range(sets)]; Cs=[torch.empty(m,n,device='cuda',dtype=bf) for _ in range(2)]
    fl=2*m*n*k; reps=max(1,int(8e-3/(fl/6e14+byte/3e12+3e-6))//sets); n_l=sets*reps
    L=Lt(m,n,k,As[0],Bs[0],Cs[0]); gs=[]
    for i in range(L.n): gs.append((f'lt{i}',graph([lambda j=j,i=i: L.launch(i,As[j%sets],Bs[j%sets],Cs[j%2]) for j in range(n_l)])))
    gs.append(('torch',graph([lambda j=j: torch.matmul(As[j%sets],Bs[j%sets],out=Cs[j%2]) for j in range(n_l)])))
    keep=[]
    for kern in cands:
        ar=[kern.args(m,n,k,As[j%sets],Bs[j%sets],Cs[j%2]) for j in range(sets*2)]; keep.append(ar)
        gs.append((kern.name,graph([lambda j=j,ar=ar,kern=kern: kern.launch(ar[j%len(ar)]) for j in range(n_l)])))
    ts={x:[] for x,_ in gs}
    for r in range(rounds):
        random.shuffle(gs)
        for x,g in gs: ts[x].append(timeg(g,n_l))
    med={x:statistics.median(v) for x,v in ts.items()}
    lt_best=min((v,x) for x,v in med.items() if x.startswith('lt'))
    say(f'== ({m},{n},{k}) b {"deep" if bt else "wide"}: lt best {lt_best[1]} {lt_best[0]:.1f} us {fl/lt_best[0]/1e6:.0f} TF; torch {med["torch"]:.1f}; all '+' '.join(f'{med[x]:.0f}' for x in med if x.startswith('lt')))
    lt_min=min(ts[lt_best[1]])
    ours=sorted((v,x) for x,v in med.items() if not x.startswith('lt') and x!='torch')
    for v,x in ours: print(f'   {x:28} {v:9.1f} us  {fl/v/1e6:6.0f} TF  {lt_best[0]/v:.3f} {lt_min/min(ts[x]):.3f} [{min(ts[x]):.1f} {max(ts[x]):.1f}]',file=LOG)
    for v,x in ours[:7]: print(f'   {x:28} {v:9.1f} us  {fl/v/1e6:6.0f} TF  {lt_best[0]/v:.3f} min {lt_min/min(ts[x]):.3f}',flush=True)
    RES[str((m,n,k,bt))]=med
    json.dump(RES,open(f'{OUT}/res.json','w'))
def K(*l):
    return [Kernel(C[x[0]],*x[1:]) for x in l if x[0] in good]
