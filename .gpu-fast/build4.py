import sys,re,os,json
sys.path.insert(0,'/tmp/fastenv'); import comp
out=sys.argv[1]; os.makedirs(out,exist_ok=True); L=[]
H='/work/wt/fast/crates/iris-kernels/hip/'
def add(src,tag,fast,dt='bf16',tm=128,tn=256,st=3,wg=2,extra=()):
    d=dict(DTYPE=dt,TILE_M=tm,TILE_N=tn,RASTER=16)
    if fast: d.update(SM90=1,STAGES=st,WARPGROUPS=wg)
    else: d.update(WAVES_M=2,WAVES_N=8 if tn>=256 else 4)
    name=f'{src}_{tag}'
    log=comp.comp(H+src+'.hip',[f'IRIS_{k}={v}' for k,v in d.items()]+list(extra),f'{out}/{name}.cubin')
    if log is None: sys.exit(name)
    os.remove(f'{out}/{name}.cubin.ptx')
    print(name,'spill',re.findall(r'(\d+) bytes spill stores',log),'regs',re.findall(r'Used (\d+)',log),'smem',re.findall(r'(\d+) bytes smem',log),[l for l in log.splitlines() if re.search('warn|C7',l)],flush=True)
    L.append(dict(name=name,src=src,tag=tag,fast=fast,dt=dt,tm=tm,tn=tn,st=st,wg=wg,threads=(wg*128+128) if fast else 32*2*d['WAVES_N']))
ops=['two_shot','one_shot','matmul_reduce_scatter','all_gather_matmul','matmul_all_gather']
for o in ops:
    add(o,'fast',1); add(o,'port',0)
add('two_shot','fast_f16',1,'f16'); add('two_shot','port_f16',0,'f16')
for o in ('two_shot','one_shot','all_gather_matmul'):
    add(o,'fast64',1,tm=64,tn=64,st=12,wg=1)
    add(o,'fast128x64',1,tm=128,tn=64,st=8)
add('matmul','fast',1); add('matmul','port',0); add('matmul','fast_f16',1,'f16')
add('matmul','fast64',1,tm=64,tn=64,st=12,wg=1)
add('matmul','fast64s8',1,tm=64,tn=64,st=8,wg=1)
add('matmul','fast128x64',1,tm=128,tn=64,st=8)
add('matmul','fast128x128',1,tm=128,tn=128,st=5)
json.dump(L,open(f'{out}/configs.json','w'))
