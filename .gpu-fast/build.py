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
W=dict(DTYPE='bf16',SPINS=20000000)
B=dict(W,TILE_M=128,TILE_N=256,WARPGROUPS=2,STAGES=3)
for cl in (1,2):
    for lead in (0,1,2,3): L.append(add(f'c{cl}l{lead}',**B,CLUSTER=cl,LEAD=lead))
for lead in (1,2): L.append(add(f'tall{lead}',**W,TILE_M=256,TILE_N=128,WARPGROUPS=2,STAGES=3,CLUSTER=1,LEAD=lead))
L.append(add(f'sq',**W,TILE_M=128,TILE_N=128,WARPGROUPS=2,STAGES=5,CLUSTER=1,LEAD=2))
for st in (8,12): L.append(add(f'one64x64s{st}',**W,TILE_M=64,TILE_N=64,WARPGROUPS=1,CLUSTER=1,STAGES=st))
L.append(add(f'two64x64',**W,TILE_M=64,TILE_N=64,WARPGROUPS=1,CLUSTER=1,STAGES=6,RESIDENT=2))
L.append(add(f'coop128x64',**W,TILE_M=128,TILE_N=64,WARPGROUPS=2,CLUSTER=1,STAGES=8,LEAD=0))
L.append(add(f'coop128x64l3',**W,TILE_M=128,TILE_N=64,WARPGROUPS=2,CLUSTER=1,STAGES=8,LEAD=3))
L.append(add('c1l2h',**dict(B,DTYPE='f16'),CLUSTER=1,LEAD=2))
json.dump(L,open(f'{out}/configs.json','w'))
