from bench import *
import random
F=['world','rank','blocks','m','n','k','given','a','a_row','a_col','b','b_row','b_col','bias','c','c_row','output','output_row','bounced','cells','words','tiles','locks','staging','slots','slot_bytes','accumulators','accumulator_elements','first','budget_ns','abort','fault','operation','removed','stall_rank','stall_index','stall_phase','stall_ns']
CFG={c['name']:c for c in json.load(open(f'{D}/configs.json'))}
cd=lambda a,b:-(-a//b)
def shard(t,w,r):
    s=cd(t,w); return min(t,r*s),min(t,(r+1)*s)
def enc(dt,rank,ptr,dims,strides,box):
    raw=ctypes.create_string_buffer(192); at=(ctypes.addressof(raw)+63)&~63
    ck(cu.cuTensorMapEncodeTiled(ctypes.c_void_p(at),9 if dt==torch.bfloat16 else 6,rank,ctypes.c_void_p(ptr),(ctypes.c_uint64*rank)(*dims),(ctypes.c_uint64*(rank-1))(*strides),
       (ctypes.c_uint32*rank)(*box),(ctypes.c_uint32*rank)(*[1]*rank),0,3,2,0),f'encode {dims} {strides} {box}')
    return ctypes.string_at(at,128)
NULL=b'\0'*128
KERN={}
def kernel(src,tag,name):
    key=(src,tag,name)
    if key not in KERN:
        c=CFG[f'{src}_{tag}']; f=func(c['name'],name); sh=0
        if c['fast']:
            sh=c['st']*(c['tm']+c['tn'])*128+c['tm']*c['tn']*2+(c['st']+c['wg'])*16+1024
            ck(cu.cuFuncSetAttribute(f,8,sh),'shared')
        KERN[key]=(f,c,sh)
    return KERN[key]
def launch(kern,args,maps,stream,blocks):
    f,c,sh=kern
    blob=struct.pack('<54Q',*args)
    if c['fast']: blob+=maps
    raw=ctypes.create_string_buffer(len(blob)+64); at=(ctypes.addressof(raw)+63)&~63
    ctypes.memmove(at,blob,len(blob)); p=(ctypes.c_void_p*1)(at)
    ck(cu.cuLaunchKernel(f,blocks,1,1,c['threads'],1,1,sh,ctypes.c_void_p(stream),p,None),'launch')
def maps(c,dt,a,b,cc,pieces=(NULL,NULL)):
    tm,tn=c['tm'],c['tn']; ad=bd=1; ab=tm*128; ma=mb=mc=NULL; cm=0
    if a is not None and min(a.shape)>0:
        m,k=a.shape; ad=int(a.stride(1)==1)
        if ad: box=min(tm,cd(m,8)*8); ab=box*128; ma=enc(dt,2,a.data_ptr(),(k,m),(a.stride(0)*2,),(64,box))
        else: ma=enc(dt,2,a.data_ptr(),(m,k),(a.stride(1)*2,),(64,64))
    if b is not None and min(b.shape)>0:
        k,n=b.shape; bd=int(b.stride(0)==1 and b.stride(1)!=1)
        mb=enc(dt,2,b.data_ptr(),(k,n),(b.stride(1)*2,),(64,tn)) if bd else enc(dt,2,b.data_ptr(),(n,k),(b.stride(0)*2,),(64,64))
    if cc is not None and min(cc.shape)>0 and cc.data_ptr()%16==0 and cc.stride(0)%8==0:
        mc=enc(dt,2,cc.data_ptr(),(cc.shape[1],cc.shape[0]),(cc.stride(0)*2,),(64,64)); cm=1
    return struct.pack('<4Q',ad,bd,ab,cm)+b'\0'*48+ma+mb+mc+pieces[0]+pieces[1]
def lay(x,wide,pad):
    # the same matrix with rows (deep) or columns (wide) side by side, pitch padded
    r,c=x.shape
    if wide:
        t=torch.empty(c,cd(r,8)*8+pad,device='cuda',dtype=x.dtype)[:,:r].t()
    else: t=torch.empty(r,cd(c,8)*8+pad,device='cuda',dtype=x.dtype)[:,:c]
    t.copy_(x); return t
def ints(r,c,dt,lim=1): return torch.randint(-lim,lim+1,(r,c),device='cuda').to(dt)
NAMES={'two_shot':'iris_two_shot','one_shot':'iris_one_shot','rs':'iris_matmul_reduce_scatter','agr':'iris_all_gather_matmul_rows','agc':'iris_all_gather_matmul_columns','mag':'iris_matmul_all_gather'}
SRC={'two_shot':'two_shot','one_shot':'one_shot','rs':'matmul_reduce_scatter','agr':'all_gather_matmul','agc':'all_gather_matmul','mag':'matmul_all_gather'}
def case(op,W,ms,N,K,tags,aw=0,bw=0,dt=torch.bfloat16,bias=True,bounced=False,mism=None,budget=4e9,cpad=0,first=1):
    """tags(rank,call) -> build; bw: b wide. Returns a text, '' if right"""
    src=SRC[op]; c0=CFG[f"{src}_{tags(0,0)}"]; tm,tn=c0['tm'],c0['tn']; M=max(ms); blocks=132//W
    grid=lambda r,c: cd(r,tm)*cd(c,tn)
    if op=='two_shot': slots=cd(grid(M,N),W)
    elif op=='one_shot': slots=grid(M,N)
    elif op=='rs': slots=grid(cd(M,W),N)
    elif op=='agr': slots=cd(cd(M,W),tm)
    elif op=='agc': slots=cd(M,tm)
    else: slots=1
    kd=K if op=='agr' else cd(K,W)
    slot_bytes=tm*tn*2 if op in('two_shot','one_shot','rs') else tm*cd(kd,8)*16 if op!='mag' else 16
    cells=0; words=((2+2*W+12*W+1)*8+255)//256*256; nw=W*(7+2*slots)
    staging=(words+nw*4+1023)//1024*1024; out0=staging+2*W*slots*slot_bytes; out0=(out0+1023)//1024*1024
    pitch=cd(N,8)*8+cpad; outb=cd(M*pitch*2,256)*256; total=out0+outb*len(ms)
    heaps=[torch.zeros(total,dtype=torch.uint8,device='cuda') for _ in range(W)]
    for h in heaps: h[staging:out0]=0xff   # NaN in staging: stale data is seen
    faults=[torch.zeros(14,dtype=torch.int64,device='cuda') for _ in range(W)]
    for h in heaps: h[out0:]=0xee
    streams=[torch.cuda.Stream() for _ in range(W)]; todo=[]; checks=[]; keep=[]
    for ci,m in enumerate(ms):
        bi=(torch.randint(-8,9,(N,),device='cuda').to(dt) if bias else None)
        A=ints(m,K,dt); B=ints(K,N,dt); C=A.float()@B.float()
        if bi is not None: C=C+bi.float()
        for r in range(W):
            mr=m if mism is None or mism!=(r,ci) else m+1 if m<M else m-1
            k0,k1=shard(K,W,r); r0,r1=shard(m,W,r); n0,n1=shard(N,W,r)
            x=[0]*54
            def s(**kw):
                for k,v in kw.items(): x[16+F.index(k)]=int(v)
            for q in range(W): x[q]=heaps[q].data_ptr()
            c=CFG[f'{src}_{tags(r,ci)}']
            a,b,cc,bb=A,B,None,bi
            off=out0+outb*ci; outw=pitch
            if op in('two_shot','one_shot','rs'): a=A[:,k0:k1]; b=B[k0:k1]
            elif op=='agr': a=A[r0:r1]; b=B[:,n0:n1]; bb=bi[n0:n1].clone() if bi is not None else None
            elif op=='agc': a=A[:,k0:k1]; b=B[:,n0:n1]; bb=bi[n0:n1].clone() if bi is not None else None
            else: a=A[r0:r1]
            a=lay(a,aw,8); b=lay(b,not bw,0)
            if op in('two_shot','mag'):
                if bounced:
                    cc=torch.full((m,pitch),7,device='cuda',dtype=dt)[:,:N]; outw=pitch
                view=heaps[r][off:off+m*pitch*2].view(dt).view(m,pitch)
                got=cc if bounced else view[:,:N]; want=C
            elif op=='one_shot': cc=torch.full((m,pitch),7,device='cuda',dtype=dt)[:,:N]; got,want=cc,C
            elif op=='rs': cc=torch.full((max(1,r1-r0),pitch),7,device='cuda',dtype=dt)[:r1-r0,:N]; got,want=cc,C[r0:r1]
            else:
                nn=n1-n0; cc=torch.full((m,max(8,cd(nn,8)*8+cpad)),7,device='cuda',dtype=dt)[:,:nn]; got,want=cc,C[:,n0:n1]
            s(world=W,rank=r,blocks=blocks,m=mr,n=N,k=K,a=a.data_ptr(),a_row=a.stride(0),a_col=a.stride(1),b=b.data_ptr(),b_row=b.stride(0),b_col=b.stride(1),
              bias=bb.data_ptr() if bb is not None else 0,c=cc.data_ptr() if cc is not None else 0,c_row=cc.stride(0) if cc is not None else 0,output=off,output_row=outw,bounced=bounced,
              cells=cells,words=words,tiles=slots,staging=staging,slots=slots,slot_bytes=slot_bytes,first=first,budget_ns=budget,fault=faults[r].data_ptr(),operation=7)
            mp=b''
            if c['fast']:
                pc=[NULL,NULL]
                if op in('agr','agc'):
                    ds=[K,K] if op=='agr' else [cd(K,W),min([d for d in (shard(K,W,q)[1]-shard(K,W,q)[0] for q in range(W)) if d>0])]
                    pc=[enc(dt,3,heaps[r].data_ptr()+staging,(d,tm,2*W*slots),(cd(d,8)*16,slot_bytes),(64,tm,1)) for d in ds]
                mp=maps(c,dt,a,b,cc if op in('agr','agc') else None,pc)
            todo.append((kernel(src,tags(r,ci),NAMES[op]),x,mp,streams[r].cuda_stream)); keep.append((a,b,bb,cc))
            checks.append((ci,r,got,want))
    torch.cuda.synchronize()
    for kern,x,mp,st in todo: launch(kern,x,mp,st,blocks)
    t=time.time()
    while not all(q.query() for q in streams):
        if time.time()-t>budget/1e9+6: say('HANG',op,W,ms,N,K,[list(map(int,[])) for _ in faults]); os._exit(3)
        time.sleep(0.002)
    torch.cuda.synchronize()
    fr=[f.tolist() for f in faults]
    if mism is not None:
        return '' if all(f[0]==1 for f in fr) and any(f[5]==2 for f in fr) else f'mismatch gave {fr}'
    if any(f[0] for f in fr): return f'faults {[ (i,f) for i,f in enumerate(fr) if f[0]]}'
    bad=[]
    for ci,r,got,want in checks:
        w=want.to(dt)
        if got.numel() and not torch.equal(got,w):
            d=(got!=w)|got.isnan(); ix=d.nonzero(); bad.append(f'call {ci} m {ms[ci]} rank {r}: {int(d.sum())} of {d.numel()} wrong, first {ix[0].tolist()} got {float(got[tuple(ix[0])])} want {float(w[tuple(ix[0])])} rows {int(ix[:,0].min())}..{int(ix[:,0].max())} cols {int(ix[:,1].min())}..{int(ix[:,1].max())}')
    return '; '.join(bad[:3])
def sweep(op):
    n=ok=0; T0=time.time()
    al=[(0,0),(1,0),(0,1),(1,1)] if op in('two_shot','one_shot','rs','mag') else [(0,0),(0,1)]
    fast=lambda r,c:'fast'; port=lambda r,c:'port'; mix=lambda r,c:'fast' if (r+c)%2==0 else 'port'
    runs=[]
    for W in (1,2,3,4):
        for i,(aw,bw) in enumerate(al):
            runs.append(dict(W=W,ms=[300,129,512,64,512,1,300],N=520,K=64*W*(2+i) if op=='agc' else 456-i*40,tags=fast,aw=aw,bw=bw))
    runs+=[dict(W=W,ms=[257,512,3,512,130,129,128,300],N=776,K=384 if op=='agc' else 200,tags=mix) for W in (2,3)]
    runs+=[dict(W=3,ms=[300,200,128],N=264,K=400 if op!='agc' else 384,tags=port)]
    runs+=[dict(W=3,ms=[130,2,1,130],N=40,K=2 if op!='agc' else 128,tags=fast),dict(W=4,ms=[700,5,700],N=1544,K=72 if op!='agc' else 192,tags=fast,bias=False)]
    runs+=[dict(W=2,ms=[200,300,200],N=331,K=256,tags=fast),dict(W=2,ms=[200,300,64],N=330,K=256,tags=mix,cpad=1)]
    runs+=[dict(W=2,ms=[1024,2048,1024],N=2048,K=512,tags=fast)]
    if op in('two_shot','mag'): runs+=[dict(W=W,ms=[300,128,300],N=520,K=256,tags=fast,bounced=True) for W in (2,3)]
    if op in('two_shot','one_shot','agr'): runs+=[dict(W=W,ms=[60,64,1,16],N=520,K=456,tags=lambda r,c:'fast64',aw=aw) for W in (2,3) for aw in ((0,1) if op!='agr' else (0,))]+[dict(W=W,ms=[100,128,1,300],N=520,K=456,tags=lambda r,c:'fast128x64') for W in (1,2)]
    if op=='two_shot': runs+=[dict(W=2,ms=[300,129,512,64],N=520,K=456,tags=lambda r,c:['fast_f16','port_f16'][(r+c)%2],dt=torch.float16)]
    runs+=[dict(W=2,ms=[128]*40,N=512,K=256,tags=fast,first=2147483647-20)]
    for kw in runs:
        try: bad=case(op,**kw)
        except Exception as e: bad='EXC '+repr(e)
        n+=1; ok+=bad==''
        if bad: say(f'  {op} {dict((k,v) for k,v in kw.items() if k!="tags")} {kw["tags"](0,0)}: {bad[:600]}')
        if 'EXC' in bad: break
    if op!='mag' or True:
        bad=case(op,W=2,ms=[128,256,128,256],N=512,K=256,tags=fast,mism=(1,2),budget=1e9)
        n+=1; ok+=bad==''
        if bad: say(f'  {op} mismatch: {bad}')
    say(f'{op}: {ok} of {n} right, {time.time()-T0:.1f}s')
if __name__=='__main__': sweep(sys.argv[1])
