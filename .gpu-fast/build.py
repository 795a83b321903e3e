# Compiles the configurations to be measured.
import sys,re,os
sys.path.insert(0,'/tmp/fastenv'); import comp
out=sys.argv[1]; os.makedirs(out,exist_ok=True)
C=[]
def add(name,**kw):
    C.append(name); defs=[f'IRIS_{k}={v}' for k,v in kw.items()]
    log=comp.comp('/work/wt/fast/crates/iris-kernels/hip/matmul.hip',defs,f'{out}/{name}.cubin')
    if log is None: sys.exit(name)
    s=comp.sass(f'{out}/{name}.cubin'); os.remove(f'{out}/{name}.cubin.ptx')
    bad=[l for l in log.splitlines() if re.search('warn|erializ|C7',l)]
    print(name,'spill',re.findall(r'(\d+) bytes spill stores',log),'regs',re.findall(r'Used (\d+)',log),'HGMMA',s.count('HGMMA'),'LDL',len(re.findall(r'\bLDL',s)),bad,flush=True)
    kw['name']=name
    return kw
import json
L=[]
spin='DSPIN'
for dt in ['bf16']:
    for cl in (1,2):
        L.append(add(f'coop128x256c{cl}',DTYPE=dt,TILE_M=128,TILE_N=256,WARPGROUPS=2,CLUSTER=cl,STAGES=4,SPINS=20000000))
    L.append(add(f'coop256x128c2',DTYPE=dt,TILE_M=256,TILE_N=128,WARPGROUPS=2,CLUSTER=2,STAGES=4,SPINS=20000000))
    for cl in (1,2):
        L.append(add(f'ping128x128c{cl}',DTYPE=dt,TILE_M=128,TILE_N=128,WARPGROUPS=2,CLUSTER=cl,STAGES=6,PINGPONG=1,SPINS=20000000))
    L.append(add(f'ping64x256c2',DTYPE=dt,TILE_M=64,TILE_N=256,WARPGROUPS=2,CLUSTER=2,STAGES=5,PINGPONG=1,SPINS=20000000))
    L.append(add(f'coop128x128c1',DTYPE=dt,TILE_M=128,TILE_N=128,WARPGROUPS=2,CLUSTER=1,STAGES=6,SPINS=20000000))
    L.append(add(f'one64x64',DTYPE=dt,TILE_M=64,TILE_N=64,WARPGROUPS=1,CLUSTER=1,STAGES=12,SPINS=20000000))
    L.append(add(f'one64x128',DTYPE=dt,TILE_M=64,TILE_N=128,WARPGROUPS=1,CLUSTER=1,STAGES=8,SPINS=20000000))
    L.append(add(f'one128x64',DTYPE=dt,TILE_M=128,TILE_N=64,WARPGROUPS=1,CLUSTER=1,STAGES=8,SPINS=20000000))
L.append(add('coop128x256c2h',DTYPE='f16',TILE_M=128,TILE_N=256,WARPGROUPS=2,CLUSTER=2,STAGES=4,SPINS=20000000))
json.dump(L,open(f'{out}/configs.json','w'))
